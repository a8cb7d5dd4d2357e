"""What the runs say of each pair of arms: that they differ, that they are alike, or neither.

"As good as" is not a failed test of difference: it is an equivalence test's to say, within a
margin that is stated beforehand (`MARGIN`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from convnext_study.results.compare import ALPHA, Comparison, compare
from convnext_study.results.equivalence import equivalence_p
from convnext_study.results.evidence import resolution_of
from convnext_study.results.statistics import PooledStd, holm, pool_std
from convnext_study.studies.pruning import targets as of
from convnext_study.studies.pruning.arms import DENSE, LABELS
from convnext_study.studies.pruning.rows import Row, by_arm, targets_of

MARGIN = 1.0  # points: a difference that would matter
# Of one target: the arms, and what their difference answers.
PAIRS = (
    (of.SCRATCH_B, of.FINE_TUNED, "claim 1: trained from scratch, or pruned and fine-tuned"),
    (of.SCRATCH_E, of.FINE_TUNED, "claim 1, equal epochs"),
    (of.SCRATCH_B, of.SCRATCH_E, "as much computation as the large network had"),
    (of.SCRATCH_B, DENSE, "the large network's accuracy, at its computation"),
    (of.INHERITED, DENSE, "the same by pruning"),
    (of.INHERITED, of.FINE_TUNED, "the schedule, with inherited weights"),
    (of.INHERITED, of.SCRATCH_E, "the weights, with the whole schedule"),
    (of.INHERITED, of.SCRATCH_T, "the weights, at equal computation in all"),
    (of.TICKET, of.CONTROL, "claim 4: the ticket's own start, usual rate"),
    (of.SLOW_TICKET, of.SLOW_CONTROL, "claim 4, a tenth of the rate"),
)
# Of one arm: the first target, which has the same MACs as the others, and what they ask.
FIRST = "half"
OTHERS = (
    ("thinet", "criterion: ThiNet or L1-norm"),
    ("regression", "criterion: regression or L1-norm"),
    ("half_random", "criterion: random filters or L1-norm"),
    ("half_smallest", "criterion: smallest filters or L1-norm"),
    ("slimming", "claim 3: slimmed widths or uniform ones"),
    ("random_widths", "claim 3: random widths or uniform ones"),
)


@dataclass(frozen=True)
class Statement:
    """A pair of rows and what is known of their difference, first minus second.

    ``p_equivalent`` is of the equivalence test; both p are Holm's over all statements.
    """

    first: Row
    second: Row
    question: str
    comparison: Comparison
    p_equivalent: float

    @property
    def differs(self) -> bool:
        """Whether the difference is significant."""
        return self.comparison.significant

    @property
    def is_equivalent(self) -> bool:
        """Whether it is significantly smaller than the margin."""
        return self.p_equivalent <= ALPHA

    @property
    def verdict(self) -> str:
        """In words."""
        better = self.comparison.difference.diff * self.comparison.metric.sign > 0
        said = ("better" if better else "worse") if self.differs else ""
        alike = f"within {MARGIN:g}" if self.is_equivalent else ""
        return ", ".join(filter(None, (said, alike))) or "open"


def statements(rows: Mapping[str, Row]) -> list[Statement]:
    """Every pair that the runs allow to test, corrected together by Holm's method."""
    std = pooled(rows)
    pairs = list(dict.fromkeys(_pairs(rows)))
    tests = [compare(rows[a].records, rows[b].records, std=std) for a, b, _ in pairs]
    alike = [
        equivalence_p(test, rows[a].records, rows[b].records, MARGIN)
        for test, (a, b, _) in zip(tests, pairs, strict=True)
    ]
    adjusted, alike_adjusted = holm([test.difference.p for test in tests]), holm(alike)
    return [
        Statement(
            rows[a],
            rows[b],
            question,
            replace(test, p_adjusted=p, family=len(pairs)),
            p_alike,
        )
        for (a, b, question), test, p, p_alike in zip(
            pairs, tests, adjusted, alike_adjusted, strict=True
        )
    ]


def pooled(rows: Mapping[str, Row]) -> PooledStd | None:
    """The standard deviation between seeds over all arms; None of one seed."""
    values = [row.values for row in rows.values()]
    if not values:
        return None
    first = next(iter(rows.values())).first.metric
    source = f"{sum(len(one) > 1 for one in values)} arms"
    return pool_std(values, source, resolution=resolution_of(first))


def _pairs(rows: Mapping[str, Row]) -> Iterator[tuple[str, str, str]]:
    for network, target in targets_of(rows):
        arms = by_arm(rows, network, target)
        for one, other, question in PAIRS:
            if one in arms and other in arms:
                yield arms[one].name, arms[other].name, question
    for network in dict.fromkeys(row.network for row in rows.values()):
        usual = by_arm(rows, network, FIRST)
        for target, question in OTHERS:
            arms = by_arm(rows, network, target)
            for arm in (of.FINE_TUNED, of.INHERITED, of.SCRATCH_E):
                if arm in arms and arm in usual:
                    yield arms[arm].name, usual[arm].name, f"{question}: {LABELS[arm]}"
