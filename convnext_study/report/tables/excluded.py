"""The table of runs that no mean counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convnext_study.report.tables.table import Column, Table

if TYPE_CHECKING:
    from convnext_study.results.excluded import ExcludedRun

COLUMNS: list[Column[ExcludedRun]] = [
    Column("run", "run", lambda one: one.run, "text"),
    Column("label", "row", lambda one: one.row, "text"),
    Column("seed", "seed", lambda one: one.seed, format=str),
    Column("state", "state", lambda one: one.state, "text"),
    Column("value", "top-1 %", lambda one: one.value),
    Column("reason", "reason", lambda one: one.reason, "text"),
]


def excluded_table(runs: Sequence[ExcludedRun]) -> Table[ExcludedRun] | None:
    """Every excluded run with the reason; None where there is none."""
    return Table("excluded", "Runs excluded from every mean", COLUMNS, runs) if runs else None
