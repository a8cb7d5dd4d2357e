"""What the paper's tables say of a study: the deviation between seeds, and how far the order of its
rows, and of its steps by gain, is the paper's (Tables 10 and 11).

Gains of neighbouring steps share a row, so that tables of p for correlations do not hold. Here
every p is that of permuting the accuracies over the rows, from which gains are computed anew.
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
    "to the rows that agree as well. Correlations given log MACs are partial ones, given the "
    "change of the logarithm of MACs: agreement beyond what counting MACs predicts."
)
CAVEAT = (
    "The paper's numbers are ImageNet-1K accuracies; another data set, size of network or recipe "
    "need not agree with them."
)
_SEEDS = 3  # of each row of Table 10
_DIGITS = 6  # differences of printed numbers carry rounding errors far below this
_FEWEST = 5  # rows, of which there are 120 orders
PERMUTATIONS, REPLICATES = 20_000, 2_000
ROWS, GAINS = "rows by accuracy, Kendall", "steps by gain"
Kind = Callable[["Array"], "Array"]


def paper_std() -> PooledStd:
    """The standard deviation between seeds that Table 10 gives, pooled over its rows.

    The table does not say whether its standard deviations divide by n or n - 1; n - 1 is assumed.
    """
    printed = [row.std for row in PAPER["t"].values() if row.std is not None]
    pooled = math.sqrt(fmean(std**2 for std in printed))
    source = f"{len(printed)} rows of the paper's Table 10 ({_SEEDS} seeds each, ImageNet-1K)"
    return PooledStd(pooled, len(printed) * (_SEEDS - 1), source)


@dataclass(frozen=True)
class AgreementStatistic:
    """One way in which a road agrees with a table of the paper, and what it compares with.

    Args:
        what: is correlated, in words.
        value: the correlation, from -1 to 1.
        p: one-sided, by permuting rows.
        count: pairs of numbers.
        macs_alone: what the logarithm of MACs reaches in place of accuracies; None for partial
            correlations, which take it out.
        other_table: what the paper's other table reaches, whose networks are deeper.
        replicate: the median of what a repetition of the paper's own trainings would reach, by
            its own deviation between seeds.
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

    ``signs`` of ``gains`` gains have the paper's sign, ``plus`` of them would if all were above 0.
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

    It is the regime's own; Table 10 for a road map that the paper does not have, whose rows are
    matched by their place on the road.

    Args:
        regime: of the road.
        value: accuracies in percent, by the name of the row.
        macs: multiply-accumulates of those rows, in any unit.

    Returns:
        No statistics for fewer than five rows, or rows that are all alike.
    """
    import numpy as np

    table = regime if regime in PAPER else "t"
    road = _Road.of(regime, value.keys() & macs.keys())
    names = road.names
    mine, cost = (np.array([given[name] for name in names], float) for given in (value, macs))
    if len(names) < _FEWEST or np.ptp(mine.round(_DIGITS)) == 0:
        return Agreement(TABLES[table])
    printed, deeper = (road.printed(one) for one in (table, "b" if table == "t" else "t"))
    work = road.gains(np.log(cost))
    draw = np.random.default_rng(0)
    shuffled = draw.permuted(np.tile(mine, (PERMUTATIONS, 1)), axis=1)
    # Printed means over three seeds and those of a repetition both have the deviation of a mean.
    spread = paper_std().std * math.sqrt(2 / _SEEDS)
    again = printed + spread * draw.standard_normal((REPLICATES, len(names)))

    def statistic(
        what: str, of: Callable[[Array], Array], *, macs_alone: bool
    ) -> AgreementStatistic:
        seen = float(of(mine[None])[0])
        hits = int((of(shuffled) >= seen - 1e-12).sum())
        return AgreementStatistic(
            what=what,
            value=seen,
            p=(1 + hits) / (1 + PERMUTATIONS),
            count=len(names) if what == ROWS else len(road.pairs),
            macs_alone=float(of(np.log(cost)[None])[0]) if macs_alone else None,
            other_table=float(of(deeper[None])[0]),
            replicate=float(np.median(of(again))),
        )

    its = road.gains(printed)
    found = [statistic(ROWS, lambda rows: kendall(rows, printed), macs_alone=True)]
    if len(road.pairs) >= _FEWEST - 1:
        for name, kind in (("Spearman", ranks), ("Pearson", rounded)):
            plain, beyond = road.correlations(kind, its, work)
            found.append(statistic(f"{GAINS}, {name}", plain, macs_alone=True))
            found.append(statistic(f"{GAINS} given log MACs, {name}", beyond, macs_alone=False))
    ups = (road.gains(mine).round(_DIGITS) > 0), (its.round(_DIGITS) > 0)
    return Agreement(
        TABLES[table],
        tuple(found),
        signs=int((ups[0] == ups[1]).sum()),
        plus=int(ups[1].sum()),
        gains=len(its),
    )


def agreement_of_rows(regime: str, rows: Iterable[ResultRow]) -> Agreement:
    """Agreement with the paper of the rows that have its metric and known MACs."""
    compared = [row for row in rows if row.metric.name == METRIC and row.value is not None]
    value = {row.name: row.value for row in compared if row.value is not None}
    return agreement(regime, value, {row.name: row.macs for row in compared if row.macs})


@dataclass(frozen=True)
class _Road:
    """The adopted rows that were measured: their places on the road, and the pairs (child, parent)
    whose difference is a gain, by their places among these rows."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, regime: str, measured: Iterable[str]) -> _Road:
        variants = get_roadmap(regime).variants()
        measured = set(measured)
        kept = [place for place, row in enumerate(variants) if row.adopted and row.name in measured]
        names = tuple(variants[place].name for place in kept)
        pairs = [
            (child, names.index(parent))
            for child, place in enumerate(kept)
            if (parent := variants[place].parent) is not None and parent in names
        ]
        return cls(names, tuple(kept), tuple(pairs))

    def printed(self, table: str) -> Array:
        """The accuracies that a table of the paper prints for these rows: (rows,)."""
        import numpy as np

        rows = list(PAPER[table].values())
        return np.array([rows[place].top1 for place in self.places])

    def gains(self, rows: Array) -> Array:
        """(..., rows) to (..., gains)."""
        child, parent = zip(*self.pairs, strict=True)
        difference: Array = rows[..., list(child)] - rows[..., list(parent)]
        return difference

    def correlations(self, kind: Kind, its: Array, work: Array) -> tuple[Kind, Kind]:
        """Of (k, rows) accuracies: of their gains with others (gains,), and given MACs' too."""
        target, given = kind(its[None])[0], kind(work[None])[0]
        return (
            lambda rows: pearson(kind(self.gains(rows)), target),
            lambda rows: partial_correlation(kind(self.gains(rows)), target, given),
        )


def rounded(values: Array) -> Array:
    """Without the errors that differences of printed numbers carry."""
    return values.round(_DIGITS)


def ranks(values: Array) -> Array:
    """(n, k) to the ranks in each line, ties sharing their mean rank."""
    import numpy as np

    one, other = (np.expand_dims(rounded(values), axis) for axis in (2, 1))
    found: Array = ((one > other).sum(2) + (one >= other).sum(2) + 1) / 2
    return found  # scipy's rankdata, whose import takes 0.7 s


def pearson(many: Array, one: Array) -> Array:
    """Pearson's correlation of each line of (n, k) with (k,); 0 for a constant line."""
    import numpy as np

    many, one = many - many.mean(axis=1, keepdims=True), one - one.mean()
    below = np.sqrt((many**2).sum(axis=1) * (one**2).sum())
    return np.asarray((many @ one) / np.where(below > 0, below, np.inf))


def partial_correlation(many: Array, one: Array, given: Array) -> Array:
    """The correlation of each line of (n, k) with (k,) that remains given a third variable (k,)."""
    import numpy as np

    with_one, with_given = pearson(many, one), pearson(many, given)
    between = float(pearson(one[None], given)[0])
    below = np.sqrt(np.maximum((1 - with_given**2) * (1 - between**2), 0))
    return np.asarray((with_one - with_given * between) / np.where(below > 1e-9, below, np.inf))


def kendall(many: Array, one: Array) -> Array:
    """Kendall's tau-b of each line of (n, k) with (k,); 0 for a constant line."""
    import numpy as np

    first, second = np.triu_indices(len(one), 1)
    many, one = rounded(many), rounded(one)
    signs = np.sign(many[:, first] - many[:, second])
    its = np.sign(one[first] - one[second])
    below = np.sqrt((signs**2).sum(axis=1) * (its**2).sum())
    return np.asarray((signs @ its) / np.where(below > 0, below, np.inf))
