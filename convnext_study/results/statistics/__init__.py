"""Statistics of a study's numbers: intervals, tests, power. Nothing here knows a record.

`intervals` has means and differences over seeds, `paired_images` tests of single runs on the same
test images, `holm` corrects for the number of tests, `rank_agreement` compares two orders, `power`
gives the seeds that a difference takes, `subsets` and `shapley` attribute a gain to steps.
"""

from convnext_study.results.statistics.holm import holm
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    PooledStd,
    mean_interval,
    paired_difference,
    pool_std,
    pooled_difference,
    unpaired_difference,
    wilson_interval,
)
from convnext_study.results.statistics.paired_images import (
    Discordant,
    discordant,
    mcnemar,
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

__all__ = [
    "CONFIDENCE",
    "Correlation",
    "Difference",
    "Discordant",
    "Interval",
    "PooledStd",
    "Power",
    "discordant",
    "holm",
    "kendall",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "pool_std",
    "pooled_difference",
    "power_of",
    "seeds_and_images",
    "seeds_needed",
    "tango_interval",
    "unpaired_difference",
    "wilson_interval",
]
