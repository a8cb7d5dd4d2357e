"""Whether two lists of numbers stand in the same order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import CONFIDENCE, Interval, t_quantile

METHOD = (
    "Kendall's tau-b; interval by Fisher's z with the variance 0.437 / (n - 4) of Fieller, Hartley "
    "and Pearson (1957); p exact without ties, else by the normal approximation"
)
_DIGITS = 6  # Differences of printed numbers carry rounding errors far below this.


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau-b over ``count`` pairs; the interval is None for fewer than six."""

    tau: float
    interval: Interval | None
    p: float
    count: int


def kendall(
    first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE
) -> Correlation:
    """Kendall's tau-b of two lists, with its interval (see `METHOD`).

    A tau of 1 would have an interval of no width: for the interval, tau is kept half a discordant
    pair away from both ends. Raises UserError for fewer than three numbers or a constant list.
    """
    from scipy.stats import kendalltau

    pair = [[round(value, _DIGITS) for value in values] for values in (first, second)]
    count = len(pair[0])
    if count != len(pair[1]) or count < 3 or any(len(set(values)) < 2 for values in pair):
        raise UserError("a rank correlation takes two lists of three or more numbers that differ")
    found = kendalltau(pair[0], pair[1])
    tau, interval = float(found.statistic), None
    if count > 5:
        limit = 1 - 2 / (count * (count - 1))
        z = math.atanh(max(-limit, min(limit, tau)))
        half = t_quantile(math.inf, confidence) * math.sqrt(0.437 / (count - 4))
        interval = Interval(min(math.tanh(z - half), tau), max(math.tanh(z + half), tau))
    return Correlation(tau, interval, float(found.pvalue), count)
