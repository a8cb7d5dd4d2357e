"""What the runs say of each pair of arms, and of architecture by initialisation.

Pairs are tested for a difference and for equivalence, both corrected over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import (
    Format,
    level_interval,
    p_equals,
    percent,
    plural,
)
from convnext_study.results.claims import Pair, PairTest, compare_pairs
from convnext_study.results.per_sample import resolution_of
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    PooledStd,
    pool_std,
    t_quantile,
    unequal_difference,
)
from convnext_study.results.statistics.two_way import two_way
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.rows import Row, by_arm, targets_of
from convnext_study.studies.pruning.targets import FROM, GUIDED, TRANSFERRED

MARGIN = 1.0  # points: a difference that would matter
# Of one target: the arms, and what their difference answers.
ARM_CONTRASTS = (
    (of.SCRATCH_B, of.FINE_TUNED, "claim 1: trained from scratch, or pruned and fine-tuned"),
    (of.SCRATCH_E, of.FINE_TUNED, "claim 1, equal epochs"),
    (of.SCRATCH_B, of.SCRATCH_E, "as much computation as the large network had"),
    (of.SCRATCH_B, of.DENSE, "the large network's accuracy, at its computation"),
    (of.INHERITED, of.DENSE, "the same by pruning"),
    (of.INHERITED, of.FINE_TUNED, "the schedule, with inherited weights"),
    (of.INHERITED, of.SCRATCH_E, "the weights, with the whole schedule"),
    (of.INHERITED, of.SCRATCH_T, "the weights, at equal computation in all"),
    (of.TICKET, of.CONTROL, "claim 4: the ticket's own start, usual rate"),
    (of.SLOW_TICKET, of.SLOW_CONTROL, "claim 4, a tenth of the rate"),
)
# Of one arm: two targets of the same MACs, or as many weights, and what their difference answers.
TARGET_CONTRASTS = (
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
TARGET_CONTRAST_ARMS = (of.FINE_TUNED, of.INHERITED, of.SCRATCH_E, of.SCRATCH_B, of.TICKET)
ARCHITECTURES = (
    ("half", "uniform: half of each layer"),
    ("slimming", "network slimming's"),
    ("random_widths", "random widths"),
)

Deviations: TypeAlias = Mapping[str, PooledStd]  # by the names of arms


def statements(rows: Mapping[str, Row]) -> list[PairTest[Row]]:
    """Every pair that the runs allow to test, corrected together by Holm's method."""
    stds = deviations(rows)
    pairs = []
    for first, second, question in dict.fromkeys(_contrasts(rows)):
        one, other = rows[first], rows[second]
        both = {one.arm, other.arm} <= stds.keys()
        pairs.append(Pair(one, other, question, (stds[one.arm], stds[other.arm]) if both else None))
    return compare_pairs(pairs, lambda row: row.records, MARGIN)


def deviations(rows: Mapping[str, Row]) -> dict[str, PooledStd]:
    """The standard deviation between seeds of each arm, pooled over what is pruned.

    Arms are not equally noisy: short training from random weights is the noisiest by far. None of
    an arm that has one seed alone.
    """
    found = {}
    for arm in dict.fromkeys(row.arm for row in rows.values()):
        own = [row for row in rows.values() if row.arm == arm]
        source = plural(sum(len(row.values) > 1 for row in own), f"row of {of.LABELS[arm]}")
        resolution = resolution_of(own[0].result.metric)
        std = pool_std([row.values for row in own], source, resolution=resolution)
        if std is not None:
            found[arm] = std
    return found


def _contrasts(rows: Mapping[str, Row]) -> Iterator[tuple[str, str, str]]:
    """The names of two rows, and the question."""
    for network, target in targets_of(rows):
        arms = by_arm(rows, network, target)
        for one, other, question in ARM_CONTRASTS:
            if one in arms and other in arms:
                yield arms[one].name, arms[other].name, question
    for network, target in targets_of(rows):
        for against, question in _target_contrasts(target):
            arms, usual = (by_arm(rows, network, one) for one in (target, against))
            for arm in TARGET_CONTRAST_ARMS:
                if arm in arms and arm in usual:
                    yield arms[arm].name, usual[arm].name, f"{question}: {of.LABELS[arm]}"


def _target_contrasts(target: str) -> Iterator[tuple[str, str]]:
    """What a target is compared with, and the question; also where its shares are of other data."""
    plain, of_other_data, _ = target.partition(FROM)
    for name, against, question in TARGET_CONTRASTS:
        if name == plain:
            yield against, question
    if of_other_data:
        yield plain, "transfer: shares of other data or of the same"
    kind, _, ratio = plain.partition("_")
    if kind == GUIDED and ratio:
        yield f"slim_{ratio}", "claim 3: guided widths or slimmed ones"


@dataclass(frozen=True)
class Cells:
    """An architecture with inherited and with random weights, at equal MACs and one schedule."""

    label: str
    inherited: Row
    random: Row
    stds: Deviations

    @property
    def difference(self) -> Difference | None:
        """What the weights give it; None where one seed tells nothing."""
        if not {of.INHERITED, of.SCRATCH_E} <= self.stds.keys():
            return None
        both = (self.stds[of.INHERITED], self.stds[of.SCRATCH_E])
        return unequal_difference(self.inherited.values, self.random.values, both)

    def interval(self, row: Row) -> Interval | None:
        """Of a mean, over seeds, with the arm's standard deviation."""
        if row.arm not in self.stds:
            return None
        std = self.stds[row.arm]
        half = t_quantile(std.df, CONFIDENCE) * std.std / math.sqrt(len(row.values))
        return Interval(row.mean - half, row.mean + half)


def two_factor_tables(rows: Mapping[str, Row], stds: Deviations) -> list[Table[Cells]]:
    """Architecture by initialisation: one for each network that has two architectures at least."""
    found = []
    for network in dict.fromkeys(row.network for row in rows.values()):
        cells = []
        for target, label in ARCHITECTURES:
            arms = by_arm(rows, network, target)
            if of.INHERITED in arms and of.SCRATCH_E in arms:
                cells.append(Cells(label, arms[of.INHERITED], arms[of.SCRATCH_E], stds))
        if len(cells) > 1:
            found.append(_two_factor_table(network, cells))
    return found


def ci_column(key: str, value: Callable[[Any], Any], format: Format | None = None) -> Column[Any]:
    """A column of 95 % intervals."""
    return Column(key, "95 % interval", value, "interval", format)


def _two_factor_table(network: str, cells: list[Cells]) -> Table[Cells]:
    metric = cells[0].inherited.result.metric.heading
    columns: list[Column[Cells]] = [
        Column("architecture", "architecture", lambda one: one.label, "text"),
        Column("macs", "MACs", lambda one: one.random.macs, prefixed=True),
        Column("inherited", f"inherited, {metric}", lambda one: one.inherited.mean),
        ci_column("inherited_ci", lambda one: one.interval(one.inherited), level_interval),
        Column("random", f"random, {metric}", lambda one: one.random.mean),
        ci_column("random_ci", lambda one: one.interval(one.random), level_interval),
        Column("diff", "inherited - random", lambda one: one.difference and one.difference.diff),
        ci_column("diff_ci", lambda one: one.difference and one.difference.interval),
    ]
    title = "Architecture by initial weights, equal MACs, the whole schedule"
    notes = (
        "Intervals: over seeds, with standard deviations as in the statements. The analysis of "
        "variance takes one for all cells.",
        _variance_in_words(cells),
    )
    title = f"{title}: {cells[0].random.about('network_label')}"
    return Table(f"pruning_two_way_{network}", title, columns, cells, notes)


def _variance_in_words(lines: list[Cells]) -> str:
    """The analysis of variance, which takes cells of as many seeds, two at least."""
    cells = [[line.inherited.values, line.random.values] for line in lines]
    if len({len(cell) for row in cells for cell in row}) > 1 or len(cells[0][0]) < 2:
        return "An analysis of variance takes two seeds or more of each."
    resolution = resolution_of(lines[0].inherited.result.metric)
    found = two_way(cells, ("architecture", "initial weights"), resolution=resolution)
    parts = ", ".join(
        f"{factor.name} {percent(factor.share)} ({p_equals(factor.p)})"
        for factor in (found.rows, found.columns, found.interaction)
    )
    return f"Shares of the variation between all runs: {parts}."
