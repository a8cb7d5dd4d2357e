"""What may be said of a study's numbers, and how sure one may be.

`intervals` has means and differences over seeds, `images` single runs and the test images they
share, `comparison` picks the test that fits the records and corrects for the number of steps,
`agreement` asks whether the order is the paper's, `power` how many seeds a difference takes.
Accuracies are in percent, differences and deviations in points.
"""

from convnext_study.results.statistics.agreement import Agreement, Correlation, agreement, kendall
from convnext_study.results.statistics.comparison import Comparison, compare, correct, holm
from convnext_study.results.statistics.images import (
    Discordant,
    decode_correct,
    discordant,
    mcnemar,
    seeds_and_images,
    tango_interval,
)
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Deviation,
    Difference,
    Interval,
    mean_interval,
    paired_difference,
    pooled_deviation,
    pooled_difference,
    unpaired_difference,
    wilson_interval,
)
from convnext_study.results.statistics.power import (
    Power,
    paper_deviation,
    power_of,
    seeds_needed,
)

__all__ = [
    "CONFIDENCE",
    "Agreement",
    "Comparison",
    "Correlation",
    "Deviation",
    "Difference",
    "Discordant",
    "Interval",
    "Power",
    "agreement",
    "compare",
    "correct",
    "decode_correct",
    "discordant",
    "holm",
    "kendall",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "paper_deviation",
    "pooled_deviation",
    "pooled_difference",
    "power_of",
    "seeds_and_images",
    "seeds_needed",
    "tango_interval",
    "unpaired_difference",
    "wilson_interval",
]
