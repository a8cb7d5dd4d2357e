"""What the runs say of each pair of arms: that they differ, that they are alike, or neither.

"As good as" is not a failed test of difference: it is an equivalence test's to say, within a
margin that is stated beforehand (`MARGIN`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from convnext_study.report.tables.formatting import plural
from convnext_study.results.compare import ALPHA, Comparison, compare
from convnext_study.results.equivalence import equivalence_p
from convnext_study.results.evidence import resolution_of
from convnext_study.results.statistics import PooledStd, holm, pool_std, unequal_difference
from convnext_study.studies.pruning import arm_names as of
from convnext_study.studies.pruning.arm_names import DENSE, LABELS
from convnext_study.studies.pruning.optional_targets import FROM, GUIDED, TRANSFERRED
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
# Of one arm: two targets of the same MACs, or as many weights, and what their difference answers.
OTHERS = (
    ("thinet", "half", "criterion: ThiNet or L1-norm"),
    ("regression", "half", "criterion: regression or L1-norm"),
    ("half_random", "half", "criterion: random filters or L1-norm"),
    ("half_smallest", "half", "criterion: smallest filters or L1-norm"),
    ("slimming", "half", "claim 3: slimmed widths or uniform ones"),
    ("random_widths", "half", "claim 3: random widths or uniform ones"),
    (GUIDED, "half", "claim 3: guided widths or uniform ones"),
    (GUIDED, "slimming", "claim 3: guided widths or slimmed ones"),
    (TRANSFERRED, "transferred_uniform", "claim 3: transferred widths or uniform ones"),
    ("rounds", "sparse", "tickets in rounds or at once"),
    ("rounds_on", "rounds", "rounds trained on or rewound"),
    ("patterns", "sparse", "guided patterns or magnitude's own"),
)
OF_OTHERS = (of.FINE_TUNED, of.INHERITED, of.SCRATCH_E, of.SCRATCH_B, of.TICKET)


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


Deviations = Mapping[str, PooledStd]  # by the names of arms


def statements(rows: Mapping[str, Row]) -> list[Statement]:
    """Every pair that the runs allow to test, corrected together by Holm's method."""
    stds = deviations(rows)
    pairs = list(dict.fromkeys(_pairs(rows)))
    tests = [_compare(rows[a], rows[b], stds) for a, b, _ in pairs]
    alike = [
        equivalence_p(test, rows[a].records, rows[b].records, MARGIN)
        for test, (a, b, _) in zip(tests, pairs, strict=True)
    ]
    adjusted, alike_adjusted = holm([test.difference.p for test in tests]), holm(alike)
    return [
        Statement(
            rows[a], rows[b], question, replace(test, p_adjusted=p, family=len(pairs)), p_alike
        )
        for (a, b, question), test, p, p_alike in zip(
            pairs, tests, adjusted, alike_adjusted, strict=True
        )
    ]


def deviations(rows: Mapping[str, Row]) -> dict[str, PooledStd]:
    """The standard deviation between seeds of each arm, pooled over what is pruned.

    Arms are not equally noisy: short training from random weights is the noisiest by far. None of
    an arm that has one seed alone.
    """
    found = {}
    for arm in dict.fromkeys(row.arm for row in rows.values()):
        own = [row for row in rows.values() if row.arm == arm]
        source = plural(sum(len(row.values) > 1 for row in own), f"row of {LABELS[arm]}")
        resolution = resolution_of(own[0].first.metric)
        std = pool_std([row.values for row in own], source, resolution=resolution)
        if std is not None:
            found[arm] = std
    return found


def _compare(one: Row, other: Row, stds: Deviations) -> Comparison:
    test = compare(one.records, other.records)
    if one.arm not in stds or other.arm not in stds:
        return test
    both = (stds[one.arm], stds[other.arm])
    return replace(test, difference=unequal_difference(one.values, other.values, both))


def _pairs(rows: Mapping[str, Row]) -> Iterator[tuple[str, str, str]]:
    for network, target in targets_of(rows):
        arms = by_arm(rows, network, target)
        for one, other, question in PAIRS:
            if one in arms and other in arms:
                yield arms[one].name, arms[other].name, question
    for network, target in targets_of(rows):
        for against, question in _others(target):
            arms, usual = (by_arm(rows, network, one) for one in (target, against))
            for arm in OF_OTHERS:
                if arm in arms and arm in usual:
                    yield arms[arm].name, usual[arm].name, f"{question}: {LABELS[arm]}"


def _others(target: str) -> Iterator[tuple[str, str]]:
    """What a target is compared with, and the question; also where its shares are of other data."""
    plain, of_other_data, _ = target.partition(FROM)
    for name, against, question in OTHERS:
        if name == plain:
            yield against, question
    if of_other_data:
        yield plain, "transfer: shares of other data or of the same"
    kind, _, ratio = plain.partition("_")
    if kind == GUIDED and ratio:
        yield f"slim_{ratio}", "claim 3: guided widths or slimmed ones"
