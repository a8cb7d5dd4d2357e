"""What the paper's tables say of a study: the deviation between seeds, and whether its rows, and
its steps' gains, stand in the paper's order (Tables 10 and 11)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from convnext_study.errors import UserError
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Interval,
    PooledStd,
    t_quantile,
    wilson_interval,
)
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import LABEL, METRIC, PAPER, UNIT

PAPER_METRIC = MetricSpec(name=METRIC, label=LABEL, unit=UNIT)
TABLES = {"t": "Table 10", "b": "Table 11"}
CAVEAT = (
    "The paper's numbers are ImageNet-1K accuracies; another data set, size of network or recipe "
    "need not agree with them. Rows build on each other and neighbouring gains share a row, so the "
    "interval and p are a guide, not a proof."
)
_SEEDS = 3  # of each row of Table 10
METHOD = (
    "Kendall's tau-b; interval by Fisher's z with the variance 0.437 / (n - 4) of Fieller, Hartley "
    "and Pearson (1957); p exact without ties, else by the normal approximation"
)
_DIGITS = 6  # Differences of printed numbers carry rounding errors far below this.


def paper_std() -> PooledStd:
    """The standard deviation between seeds that Table 10 gives, pooled over its rows.

    The table does not say whether its standard deviations divide by n or n - 1; n - 1 is assumed.
    """
    printed = [row.std for row in PAPER["t"].values() if row.std is not None]
    pooled = math.sqrt(fmean(std**2 for std in printed))
    source = f"{len(printed)} rows of the paper's Table 10 ({_SEEDS} seeds each, ImageNet-1K)"
    return PooledStd(pooled, len(printed) * (_SEEDS - 1), source)


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau-b over ``count`` pairs; the interval is None for fewer than six."""

    tau: float
    interval: Interval | None
    p: float
    count: int


def kendall(first: Sequence[float], second: Sequence[float]) -> Correlation:
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
        half = t_quantile(math.inf, CONFIDENCE) * math.sqrt(0.437 / (count - 4))
        interval = Interval(min(math.tanh(z - half), tau), max(math.tanh(z + half), tau))
    return Correlation(tau, interval, float(found.pvalue), count)


@dataclass(frozen=True)
class SignAgreement:
    """How many of ``count`` signs are equal, with Wilson's interval of the share in percent."""

    equal: int
    count: int
    interval: Interval


@dataclass(frozen=True)
class Agreement:
    """Agreement with a table of the paper: rank correlations of the rows, of each row's gain and of
    each gain beyond what its multiply-accumulates buy (see `beyond_cost`), and how many of the
    gains have the paper's sign.

    None stands for fewer than three numbers to order, or numbers that are all alike.
    """

    table: str
    rows: Correlation | None
    gains: Correlation | None
    trades: Correlation | None = None
    signs: SignAgreement | None = None
    trade_signs: SignAgreement | None = None


def agreement(
    regime: str,
    value: Mapping[str, float],
    *,
    macs: Mapping[str, float] | None = None,
    table: str | None = None,
) -> Agreement:
    """Compare measured accuracies (percent, by the name of the row) with a table of the paper.

    ``macs`` are those rows' multiply-accumulates, in any unit; without them there are no trades.

    ``table`` is ``t`` (Table 10) or ``b`` (Table 11): the regime's own if not given, ``t`` for a
    road map that the paper does not have, whose rows are matched by their place on the road. Rows
    that were not measured are left out, and so is a gain where either of its rows is missing.
    """
    table = table or (regime if regime in PAPER else "t")
    if table not in PAPER:
        raise UserError(f"{table}: the paper has no such table; give one of {', '.join(PAPER)}")
    ours, theirs = get_roadmap(regime).variants(), get_roadmap(table).variants()
    published = {mine.name: PAPER[table][its.name] for mine, its in zip(ours, theirs, strict=True)}
    printed = {name: row.top1 for name, row in published.items()}
    parents = {row.name: row.parent for row in ours if row.name in value}
    rows = [(value[name], printed[name]) for name in parents]
    gains = _gains(parents, value, printed)
    trades: list[tuple[float, float]] = []
    if macs is not None and parents:
        flops = {name: published[name].gflops for name in published if name in parents}
        trades = _gains(parents, beyond_cost(value, macs), beyond_cost(printed, flops))
    return Agreement(
        table=TABLES[table],
        rows=_correlation(rows),
        gains=_correlation(gains),
        trades=_correlation(trades),
        signs=_equal_signs(gains),
        trade_signs=_equal_signs(trades),
    )


def agreement_of_rows(regime: str, rows: Iterable[ResultRow]) -> Agreement:
    """Agreement of a road's rows with the paper, of those that have the paper's metric.

    There are no trades unless the cost of all of them is known.
    """
    compared = {row.name: row for row in rows if row.metric.name == METRIC}
    value = {name: row.value for name, row in compared.items() if row.value is not None}
    macs = {name: float(compared[name].macs or 0) for name in value}
    return agreement(regime, value, macs=macs if all(macs.values()) else None)


def beyond_cost(value: Mapping[str, float], macs: Mapping[str, float]) -> dict[str, float]:
    """Each row's accuracy less what its multiply-accumulates buy on this road: the line of least
    squares through accuracy against their logarithm (ours; the paper plots one against the other).
    """
    names = [name for name in macs if name in value]
    x, y = [math.log2(macs[name]) for name in names], [value[name] for name in names]
    middle, mean = fmean(x), fmean(y)
    spread = sum((one - middle) ** 2 for one in x)
    slope = 0.0
    if spread:
        slope = sum((a - middle) * (b - mean) for a, b in zip(x, y, strict=True)) / spread
    return {name: b - slope * (a - middle) for name, a, b in zip(names, x, y, strict=True)}


def _gains(
    parents: Mapping[str, str | None], mine: Mapping[str, float], its: Mapping[str, float]
) -> list[tuple[float, float]]:
    """Ours and the paper's for each row whose parent was measured."""
    return [
        (mine[name] - mine[parent], its[name] - its[parent])
        for name, parent in parents.items()
        if parent is not None and parent in parents
    ]


def _equal_signs(pairs: Sequence[tuple[float, float]]) -> SignAgreement | None:
    """Gains of nothing, which have no sign, are left out. None where no gain is left."""
    signs = [(mine > 0) == (its > 0) for mine, its in pairs if round(mine, 6) and round(its, 6)]
    if not signs:
        return None
    equal = sum(signs)
    return SignAgreement(equal, len(signs), wilson_interval(equal, len(signs)))


def _correlation(pairs: Sequence[tuple[float, float]]) -> Correlation | None:
    try:
        return kendall([mine for mine, _ in pairs], [its for _, its in pairs])
    except UserError:
        return None
