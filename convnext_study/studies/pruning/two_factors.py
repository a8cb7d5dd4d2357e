"""Architecture by initialisation, at equal MACs and one schedule: which of them matters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import p_equals, percent
from convnext_study.results.evidence import resolution_of
from convnext_study.results.statistics import (
    CONFIDENCE,
    Difference,
    Interval,
    unequal_difference,
)
from convnext_study.results.statistics.intervals import t_quantile
from convnext_study.results.statistics.two_way import Factor, TwoWay, two_way
from convnext_study.studies.pruning.arm_names import INHERITED, SCRATCH_E
from convnext_study.studies.pruning.claims import Deviations
from convnext_study.studies.pruning.rows import Row, by_arm

ARCHITECTURES = (
    ("half", "uniform: half of each layer"),
    ("slimming", "network slimming's"),
    ("random_widths", "random widths"),
)


@dataclass(frozen=True)
class Cells:
    """An architecture with inherited and with random weights."""

    label: str
    inherited: Row
    random: Row
    stds: Deviations

    @property
    def difference(self) -> Difference | None:
        """What the weights give it; None where one seed tells nothing."""
        if not {INHERITED, SCRATCH_E} <= self.stds.keys():
            return None
        both = (self.stds[INHERITED], self.stds[SCRATCH_E])
        return unequal_difference(self.inherited.values, self.random.values, both)


def two_factor_tables(rows: Mapping[str, Row], stds: Deviations) -> list[Table[Cells]]:
    """One for each network that has two architectures at least."""
    found = []
    for network in dict.fromkeys(row.network for row in rows.values()):
        lines = []
        for target, label in ARCHITECTURES:
            arms = by_arm(rows, network, target)
            if INHERITED in arms and SCRATCH_E in arms:
                lines.append(Cells(label, arms[INHERITED], arms[SCRATCH_E], stds))
        if len(lines) > 1:
            found.append(_table(network, lines))
    return found


def analysis(lines: list[Cells]) -> TwoWay | None:
    """Of variance; None where cells have other numbers of seeds, or one."""
    cells = [[line.inherited.values, line.random.values] for line in lines]
    if len({len(cell) for row in cells for cell in row}) > 1 or len(cells[0][0]) < 2:
        return None
    resolution = resolution_of(lines[0].inherited.first.metric)
    return two_way(cells, ("architecture", "initial weights"), resolution=resolution)


def _table(network: str, lines: list[Cells]) -> Table[Cells]:
    metric = lines[0].inherited.first.metric.heading
    columns: list[Column[Cells]] = [
        Column("architecture", "architecture", lambda line: line.label, "text"),
        Column("macs", "MACs", lambda line: line.random.macs, prefixed=True),
        Column("inherited", f"inherited, {metric}", lambda line: line.inherited.mean),
        Column(
            "inherited_ci",
            "95 % interval",
            lambda line: _interval(line.inherited, line.stds),
            "interval",
            format=_ends,
        ),
        Column("random", f"random, {metric}", lambda line: line.random.mean),
        Column(
            "random_ci",
            "95 % interval",
            lambda line: _interval(line.random, line.stds),
            "interval",
            format=_ends,
        ),
        Column("diff", "inherited - random", lambda line: line.difference and line.difference.diff),
        Column(
            "diff_ci",
            "95 % interval",
            lambda line: line.difference and line.difference.interval,
            "interval",
        ),
    ]
    label = lines[0].random.run.metadata["network_label"]
    title = f"Architecture by initial weights, equal MACs, the whole schedule: {label}"
    found = analysis(lines)
    notes = [
        "Intervals: over seeds, with standard deviations as in the statements. The analysis of "
        "variance takes one for all cells.",
        _words(found) if found else "An analysis of variance takes two seeds or more of each.",
    ]
    return Table(f"pruning_two_way_{network}", title, columns, lines, tuple(notes))


def _words(found: TwoWay) -> str:
    def one(factor: Factor) -> str:
        return f"{factor.name} {percent(factor.share)} ({p_equals(factor.p)})"

    parts = (found.rows, found.columns, found.interaction)
    return f"Shares of the variation between all runs: {', '.join(map(one, parts))}."


def _interval(row: Row, stds: Deviations) -> Interval | None:
    if row.arm not in stds:
        return None
    std = stds[row.arm]
    half = t_quantile(std.df, CONFIDENCE) * std.std / math.sqrt(len(row.values))
    return Interval(row.mean - half, row.mean + half)


def _ends(ends: Interval) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"
