"""What may be said of a study's numbers, and how sure one may be.

`intervals` has means and differences over seeds, `images` single runs and the test images they
share, `comparison` picks the test that fits the records and corrects for the number of steps,
`agreement` asks whether the order is the paper's, `power` how many seeds a difference takes.
Accuracies are in percent, differences and deviations in points.
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
    decode_correct,
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
    "decode_correct",
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
