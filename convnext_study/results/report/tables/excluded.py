"""The table of runs that no mean counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convnext_study.results.report.tables.table import Column, Table

if TYPE_CHECKING:
    from convnext_study.results.report.apart import Apart

COLUMNS: list[Column[Apart]] = [
    Column("run", "run", lambda one: one.run, "text"),
    Column("label", "row", lambda one: one.row, "text"),
    Column("seed", "seed", lambda one: one.seed, format=str),
    Column("state", "state", lambda one: one.state, "text"),
    Column("top1", "top-1 %", lambda one: one.top1),
    Column("reason", "reason", lambda one: one.reason, "text"),
]


def excluded_table(runs: Sequence[Apart]) -> Table[Apart] | None:
    """Every excluded run with the reason; None where there is none."""
    return Table("excluded", "Runs excluded from every mean", COLUMNS, runs) if runs else None
