"""The table of runs that no mean counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convnext_study.report.tables.formatting import number
from convnext_study.report.tables.table import Column, Table
from convnext_study.results.metric_spec import UNNAMED

if TYPE_CHECKING:
    from convnext_study.results.excluded import ExcludedRun


def _heading(runs: Sequence[ExcludedRun]) -> str:
    found = {one.metric.heading for one in runs if one.value is not None}
    return found.pop() if len(found) == 1 else UNNAMED.heading


def _value(one: ExcludedRun) -> str:
    return number(one.value, one.metric.decimals)


COLUMNS: list[Column[ExcludedRun]] = [
    Column("run", "run", lambda one: one.run, "text"),
    Column("label", "row", lambda one: one.row, "text"),
    Column("seed", "seed", lambda one: one.seed, format=str),
    Column("state", "state", lambda one: one.state, "text"),
    Column("value", _heading, lambda one: one.value, cell=_value),
    Column("reason", "reason", lambda one: one.reason, "text"),
]


def excluded_table(runs: Sequence[ExcludedRun]) -> Table[ExcludedRun] | None:
    """Every excluded run with the reason; None where there is none."""
    return Table("excluded", "Runs excluded from every mean", COLUMNS, runs) if runs else None
