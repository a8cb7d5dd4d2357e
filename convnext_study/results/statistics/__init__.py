"""Statistics of a study's numbers: intervals, tests, power. Nothing here knows a record.

`intervals` has means and differences over seeds, and Holm's correction for the number of tests,
`samples` a metric's evidence and its intervals, `paired_samples` tests of two networks on the same
test images, `rank_agreement` compares two orders, `power` gives the seeds that a difference takes,
`subsets` and `shapley` attribute a gain to steps.
"""

from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    PooledStd,
    holm,
    paired_difference,
    pool_std,
    pooled_difference,
    unequal_difference,
    unpaired_difference,
    wilson_interval,
)
from convnext_study.results.statistics.paired_samples import (
    Discordant,
    discordant,
    mcnemar,
    paired_test,
    seeds_and_images,
    tango_interval,
)
from convnext_study.results.statistics.power import (
    Power,
    power_of,
    seeds_needed,
)
from convnext_study.results.statistics.rank_agreement import (
    Correlation,
    kendall,
)
from convnext_study.results.statistics.samples import (
    SampleSums,
    bootstrap_interval,
    grouped_wilson,
    sample_sums,
    standard_error,
)

__all__ = [
    "CONFIDENCE",
    "Correlation",
    "Difference",
    "Discordant",
    "Interval",
    "PooledStd",
    "Power",
    "SampleSums",
    "bootstrap_interval",
    "discordant",
    "grouped_wilson",
    "holm",
    "kendall",
    "mcnemar",
    "paired_difference",
    "paired_test",
    "pool_std",
    "pooled_difference",
    "power_of",
    "sample_sums",
    "seeds_and_images",
    "seeds_needed",
    "standard_error",
    "tango_interval",
    "unequal_difference",
    "unpaired_difference",
    "wilson_interval",
]
