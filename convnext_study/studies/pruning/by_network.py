"""Which network prunes best: of several, what half of their channels costs each, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import mean_std, percent, signed
from convnext_study.report.tables.table import Tone
from convnext_study.results.statistics import Difference, Interval
from convnext_study.studies.pruning.arm_names import (
    DENSE,
    INHERITED,
    SCRATCH_B,
    SCRATCH_E,
    SCRATCH_T,
)
from convnext_study.studies.pruning.claims import Statement
from convnext_study.studies.pruning.rows import Row, by_arm

TARGET = "half"  # what every network has
# Differences, and what they answer.
ASKED = (
    (INHERITED, DENSE, "inherited, - dense"),
    (SCRATCH_B, DENSE, "Scratch-B, - dense"),
    (INHERITED, SCRATCH_E, "inherited, - Scratch-E"),
    (INHERITED, SCRATCH_T, "inherited, - Scratch-T"),
)


@dataclass(frozen=True)
class Line:
    """A network, and the statements of its halves, by the names of the two arms."""

    dense: Row
    pruned: Row
    said: Mapping[tuple[str, str], Statement]


def networks_table(rows: Mapping[str, Row], said: Sequence[Statement]) -> list[Table[Line]]:
    """One row for each network whose halves were trained; nothing of fewer than two."""
    lines = []
    for network in dict.fromkeys(row.network for row in rows.values()):
        arms = by_arm(rows, network, TARGET)
        own = {
            (one.first.arm, one.second.arm): one
            for one in said
            if one.first.network == network and one.first.target == TARGET
            if one.second.target in (TARGET, "")
        }
        if DENSE in arms and INHERITED in arms:
            lines.append(Line(arms[DENSE], arms[INHERITED], own))
    return [_table(lines)] if len(lines) > 1 else []


def _table(lines: Sequence[Line]) -> Table[Line]:
    columns: list[Column[Line]] = [
        Column(
            "network",
            "network",
            lambda line: str(line.dense.run.metadata["network_label"]),
            "text",
        ),
        Column(
            "dense",
            f"dense, {lines[0].dense.first.metric.heading}",
            lambda line: line.dense.mean,
            cell=lambda line: mean_std(line.dense.mean, line.dense.std),
        ),
        Column("macs", "MACs", lambda line: line.dense.macs, prefixed=True),
        Column(
            "macs_left",
            "left",
            lambda line: line.pruned.macs / line.dense.macs,
            format=percent,
        ),
        *(column for pair in ASKED for column in _difference(*pair)),
    ]
    notes = (
        "Half of each layer that can go, by the L1-norm. inherited: the weights that are left, "
        "with the whole schedule; Scratch-E and Scratch-T are as long as that, and as all of the "
        "pipeline. Points; intervals and tests are those of the statements, where the family is; "
        "strong: it differs, or is within the margin, after Holm's correction.",
    )
    return Table("pruning_networks", "Which network prunes best", columns, lines, notes)


def _difference(first: str, second: str, heading: str) -> tuple[Column[Line], Column[Line]]:
    def difference(line: Line) -> Difference | None:
        one = line.said.get((first, second))
        return one.comparison.difference if one else None

    def diff(line: Line) -> float | None:
        found = difference(line)
        return found.diff if found else None

    def interval(line: Line) -> Interval | None:
        found = difference(line)
        return found.interval if found else None

    def tone(line: Line) -> Tone:
        one = line.said.get((first, second))
        return "strong" if one and one.verdict != "open" else ""

    name = f"{first}_{second}"
    return (
        Column(name, heading, diff, format=signed, tone=tone),
        Column(f"{name}_ci", "95 % interval", interval, "interval", min_width=150),
    )
