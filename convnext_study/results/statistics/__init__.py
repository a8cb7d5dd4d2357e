"""Statistics of a study's accuracies: intervals, tests, power.

`intervals` has means and differences over seeds, `paired_images` tests of single runs on the same
test images, `compare` picks the test that fits the records and adjusts for the number of steps,
`rank_agreement` compares an order with the paper's, `power` gives the seeds that a difference
takes, `subsets` and `shapley` attribute a gain to steps. Accuracies are in percent, differences
and standard deviations in percentage points.
"""

from convnext_study.results.statistics.compare import Comparison, compare, holm, holm_adjust
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
    paper_std,
    power_of,
    seeds_needed,
)
from convnext_study.results.statistics.rank_agreement import (
    Agreement,
    Correlation,
    agreement,
    kendall,
)

__all__ = [
    "CONFIDENCE",
    "Agreement",
    "Comparison",
    "Correlation",
    "Difference",
    "Discordant",
    "Interval",
    "PooledStd",
    "Power",
    "agreement",
    "compare",
    "discordant",
    "holm",
    "holm_adjust",
    "kendall",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "paper_std",
    "pool_std",
    "pooled_difference",
    "power_of",
    "seeds_and_images",
    "seeds_needed",
    "tango_interval",
    "unpaired_difference",
    "wilson_interval",
]
