"""A study against the paper's Tables 10 and 11: the standard deviation between seeds, and how far
the order of its rows, and of its steps by gain, agrees with the paper's.

Gains of neighbouring steps share a row, so standard tables of p for correlations do not apply. Here
every p comes from permuting the accuracies over the rows, from which gains are recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow
from convnext_study.results.statistics.intervals import PooledStd
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import LABEL, METRIC, PAPER, UNIT

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

PAPER_METRIC = MetricSpec(name=METRIC, label=LABEL, unit=UNIT)
TABLES = {"t": "Table 10", "b": "Table 11"}
METHOD = (
    "Adopted rows only. p is one-sided: the share of 20,000 random assignments of the accuracies "
    "to the rows that agree at least as well. Correlations given log MACs are partial "
    "correlations, given the change of the logarithm of MACs: agreement beyond what counting "
    "MACs predicts."
)
CAVEAT = (
    "The paper's numbers are ImageNet-1K accuracies; other data, network sizes or recipes need "
    "not agree with them."
)
_SEEDS = 3  # of each row of Table 10
_DIGITS = 6  # differences of printed numbers carry rounding errors far below this
_FEWEST = 5  # rows, which have 120 orders
PERMUTATIONS, REPLICATES = 20_000, 2_000
ROWS, GAINS = "rows by accuracy, Kendall", "steps by gain"
Kind = Callable[["Array"], "Array"]


def paper_std() -> PooledStd:
    """The standard deviation between seeds that Table 10 gives, pooled over its rows.

    The table does not say whether its standard deviations divide by n or n - 1; n - 1 is assumed.
    """
    stds = [row.std for row in PAPER["t"].values() if row.std is not None]
    pooled = math.sqrt(fmean(std**2 for std in stds))
    source = f"{len(stds)} rows of the paper's Table 10 ({_SEEDS} seeds each, ImageNet-1K)"
    return PooledStd(pooled, len(stds) * (_SEEDS - 1), source)


@dataclass(frozen=True)
class AgreementStatistic:
    """A correlation between a road and a table of the paper, with values to compare it with.

    Args:
        what: is correlated, in words.
        value: the correlation, from -1 to 1.
        p: one-sided, by permuting rows.
        count: pairs of numbers.
        macs_alone: the correlation of the logarithm of MACs in place of accuracies; None for
            partial correlations, which control for it.
        other_table: the correlation of the paper's other table, whose networks are deeper.
        replicate: the median correlation of repetitions of the paper's own trainings, simulated
            with its standard deviation between seeds.
    """

    what: str
    value: float
    p: float
    count: int
    macs_alone: float | None
    other_table: float
    replicate: float


@dataclass(frozen=True)
class Agreement:
    """A road's agreement with a table of the paper.

    ``signs`` of ``gains`` gains have the paper's sign; ``plus`` of the paper's are above 0.
    """

    table: str
    statistics: tuple[AgreementStatistic, ...] = ()
    signs: int = 0
    plus: int = 0
    gains: int = 0


def agreement(
    regime: str,
    value: Mapping[str, float],
    macs: Mapping[str, float],
) -> Agreement:
    """Compare measured accuracies with a table of the paper, over the adopted rows that have one.

    The table is the regime's own; Table 10 for a road map that the paper does not have, whose rows
    are matched by their position on the road.

    Args:
        regime: of the road.
        value: accuracies in percent, by row name.
        macs: multiply-accumulates of those rows, in any unit.

    Returns:
        No statistics for fewer than five rows, or where all accuracies are equal.
    """
    import numpy as np

    table = regime if regime in PAPER else "t"
    road = _Road.of(regime, value.keys() & macs.keys())
    names = road.names
    measured, costs = (np.array([by[name] for name in names], float) for by in (value, macs))
    if len(names) < _FEWEST or np.ptp(measured.round(_DIGITS)) == 0:
        return Agreement(TABLES[table])
    published, deeper = road.published(table), road.published("b" if table == "t" else "t")
    mac_gains = road.gains(np.log(costs))
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(measured, (PERMUTATIONS, 1)), axis=1)
    # Published means over three seeds and those of a repetition both deviate as means do.
    spread = paper_std().std * math.sqrt(2 / _SEEDS)
    repeated = published + spread * rng.standard_normal((REPLICATES, len(names)))

    def statistic(
        what: str, correlation: Callable[[Array], Array], *, macs_alone: bool
    ) -> AgreementStatistic:
        observed = float(correlation(measured[None])[0])
        as_high = int((correlation(shuffled) >= observed - 1e-12).sum())
        return AgreementStatistic(
            what=what,
            value=observed,
            p=(1 + as_high) / (1 + PERMUTATIONS),
            count=len(names) if what == ROWS else len(road.pairs),
            macs_alone=float(correlation(np.log(costs)[None])[0]) if macs_alone else None,
            other_table=float(correlation(deeper[None])[0]),
            replicate=float(np.median(correlation(repeated))),
        )

    gains = road.gains(published)
    results = [statistic(ROWS, lambda rows: kendall(rows, published), macs_alone=True)]
    if len(road.pairs) >= _FEWEST - 1:
        for name, kind in (("Spearman", ranks), ("Pearson", rounded)):
            plain, partial = road.correlations(kind, gains, mac_gains)
            results.append(statistic(f"{GAINS}, {name}", plain, macs_alone=True))
            results.append(statistic(f"{GAINS} given log MACs, {name}", partial, macs_alone=False))
    signs = (road.gains(measured).round(_DIGITS) > 0), (gains.round(_DIGITS) > 0)
    return Agreement(
        TABLES[table],
        tuple(results),
        signs=int((signs[0] == signs[1]).sum()),
        plus=int(signs[1].sum()),
        gains=len(gains),
    )


def agreement_of_rows(regime: str, rows: Iterable[ResultRow]) -> Agreement:
    """Agreement with the paper of the rows that have its metric and known MACs."""
    compared = [row for row in rows if row.metric.name == METRIC and row.value is not None]
    value = {row.name: row.value for row in compared if row.value is not None}
    return agreement(regime, value, {row.name: row.macs for row in compared if row.macs})


@dataclass(frozen=True)
class _Road:
    """The adopted rows that were measured: their positions on the road, and the pairs (child,
    parent) whose difference is a gain, as indices of these rows."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, regime: str, measured: Iterable[str]) -> _Road:
        variants = get_roadmap(regime).variants()
        measured = set(measured)
        kept = [i for i, row in enumerate(variants) if row.adopted and row.name in measured]
        names = tuple(variants[i].name for i in kept)
        pairs = [
            (child, names.index(parent))
            for child, i in enumerate(kept)
            if (parent := variants[i].parent) is not None and parent in names
        ]
        return cls(names, tuple(kept), tuple(pairs))

    def published(self, table: str) -> Array:
        """The accuracies of these rows in a table of the paper: (rows,)."""
        import numpy as np

        rows = list(PAPER[table].values())
        return np.array([rows[i].top1 for i in self.places])

    def gains(self, rows: Array) -> Array:
        """(..., rows) to (..., gains)."""
        child, parent = zip(*self.pairs, strict=True)
        difference: Array = rows[..., list(child)] - rows[..., list(parent)]
        return difference

    def correlations(self, kind: Kind, gains: Array, macs: Array) -> tuple[Kind, Kind]:
        """Of the gains of (k, rows) accuracies with ``gains`` (gains,); and the same given MACs."""
        target, control = kind(gains[None])[0], kind(macs[None])[0]
        return (
            lambda rows: pearson(kind(self.gains(rows)), target),
            lambda rows: partial_correlation(kind(self.gains(rows)), target, control),
        )


def rounded(values: Array) -> Array:
    """Rounds off the floating-point errors of differences of printed numbers."""
    return values.round(_DIGITS)


def ranks(values: Array) -> Array:
    """(n, k) to the ranks in each row, ties sharing their mean rank."""
    import numpy as np

    left, right = (np.expand_dims(rounded(values), axis) for axis in (2, 1))
    result: Array = ((left > right).sum(2) + (left >= right).sum(2) + 1) / 2
    return result  # scipy's rankdata, whose import takes 0.7 s


def pearson(rows: Array, target: Array) -> Array:
    """Pearson's correlation of each row of (n, k) with (k,); 0 for a constant row."""
    import numpy as np

    rows, target = rows - rows.mean(axis=1, keepdims=True), target - target.mean()
    denominator = np.sqrt((rows**2).sum(axis=1) * (target**2).sum())
    return np.asarray((rows @ target) / np.where(denominator > 0, denominator, np.inf))


def partial_correlation(rows: Array, target: Array, control: Array) -> Array:
    """The partial correlation of each row of (n, k) with (k,), given a third variable (k,)."""
    import numpy as np

    with_target, with_control = pearson(rows, target), pearson(rows, control)
    target_control = float(pearson(target[None], control)[0])
    denominator = np.sqrt(np.maximum((1 - with_control**2) * (1 - target_control**2), 0))
    numerator = with_target - with_control * target_control
    return np.asarray(numerator / np.where(denominator > 1e-9, denominator, np.inf))


def kendall(rows: Array, target: Array) -> Array:
    """Kendall's tau-b of each row of (n, k) with (k,); 0 for a constant row."""
    import numpy as np

    first, second = np.triu_indices(len(target), 1)
    rows, target = rounded(rows), rounded(target)
    signs = np.sign(rows[:, first] - rows[:, second])
    target_signs = np.sign(target[first] - target[second])
    denominator = np.sqrt((signs**2).sum(axis=1) * (target_signs**2).sum())
    return np.asarray((signs @ target_signs) / np.where(denominator > 0, denominator, np.inf))
