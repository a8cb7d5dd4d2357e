"""Whether a study's rows, and its steps' gains, stand in the paper's order (Tables 10 and 11)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import CONFIDENCE, Interval, t_quantile
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import PAPER

TABLES = {"t": "Table 10", "b": "Table 11"}
METHOD = (
    "Kendall's tau-b; interval by Fisher's z with the variance 0.437 / (n - 4) of Fieller, Hartley "
    "and Pearson (1957); p exact without ties, else by the normal approximation"
)
CAVEAT = (
    "The paper's numbers are ImageNet-1K accuracies; another data set, size of network or recipe "
    "need not agree with them. Rows build on each other and neighbouring gains share a row, so the "
    "interval and p are a guide, not a proof."
)
_DIGITS = 6  # Differences of printed numbers carry rounding errors far below this.


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau-b over ``count`` pairs; the interval is None for fewer than six."""

    tau: float
    interval: Interval | None
    p: float
    count: int


@dataclass(frozen=True)
class Agreement:
    """Rank correlations with a table of the paper: of the rows, and of each row's gain.

    None stands for fewer than three numbers to order, or numbers that are all alike.
    """

    table: str
    rows: Correlation | None
    gains: Correlation | None
    method: str = METHOD
    caveat: str = CAVEAT


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


def agreement(
    regime: str,
    value: Mapping[str, float],
    *,
    table: str | None = None,
    confidence: float = CONFIDENCE,
) -> Agreement:
    """Compare measured accuracies (percent, by the name of the row) with a table of the paper.

    ``table`` is ``t`` (Table 10) or ``b`` (Table 11): the regime's own if not given, ``t`` for a
    road map that the paper does not have, whose rows are matched by their place on the road. Rows
    that were not measured are left out, and so is a gain where either of its rows is missing.
    """
    table = table or (regime if regime in PAPER else "t")
    if table not in PAPER:
        raise UserError(f"{table}: the paper has no such table; give one of {', '.join(PAPER)}")
    diff, theirs = get_roadmap(regime).variants(), get_roadmap(table).variants()
    printed = {
        mine.name: PAPER[table][its.name].top1 for mine, its in zip(diff, theirs, strict=True)
    }
    measured = [point for point in diff if point.name in value]
    rows = [(value[point.name], printed[point.name]) for point in measured]
    gains = [
        (value[point.name] - value[parent], printed[point.name] - printed[parent])
        for point in measured
        if (parent := point.parent) is not None and parent in value
    ]
    return Agreement(
        table=TABLES[table],
        rows=_correlation(rows, confidence),
        gains=_correlation(gains, confidence),
    )


def _correlation(pairs: Sequence[tuple[float, float]], confidence: float) -> Correlation | None:
    try:
        return kendall(
            [mine for mine, _ in pairs], [its for _, its in pairs], confidence=confidence
        )
    except UserError:
        return None
