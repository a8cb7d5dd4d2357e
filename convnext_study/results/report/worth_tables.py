"""What steps are worth, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from convnext_study.results.report.tables import Column, Table
from convnext_study.results.report.tables.comparison import comparison_columns
from convnext_study.results.report.tables.formatting import signed
from convnext_study.results.report.worth import Change, Worth
from convnext_study.results.statistics import Interval

_CHANGES: list[Column[Change]] = [
    Column("label", "step", lambda one: one.label, "text"),
    *comparison_columns(lambda one: one.comparison),
    Column("macs", "MACs", lambda one: one.macs, format=signed, prefixed=True),
]


def worth_tables(worth: Worth) -> list[Table[Any]]:
    """Leave-one-out, add-one-in and Shapley values, those that there are."""
    without = "What the end of the road has more than itself without the step"
    made: list[Table[Any] | None] = [
        _changes(worth.without, "leave_one_out", without),
        _changes(worth.alone, "add_one_in", "What each step alone adds to the base network"),
        _shapley(worth),
    ]
    return [table for table in made if table]


def _changes(changes: Sequence[Change], name: str, title: str) -> Table[Change] | None:
    return Table(name, title, _CHANGES, changes) if changes else None


class _Share(NamedTuple):
    label: str
    points: float
    interval: Interval | None
    macs: float | None


_SHARES: list[Column[_Share]] = [
    Column("label", "step", lambda one: one.label, "text"),
    Column("diff", "points", lambda one: one.points, format=signed),
    Column("ci", "95 % interval", lambda one: one.interval, "interval"),
    Column("macs", "MACs", lambda one: one.macs, format=signed, prefixed=True),
]


def _shapley(worth: Worth) -> Table[_Share] | None:
    """Shapley values of accuracy and of MACs."""
    if worth.shares is None:
        return None
    rows = []
    for step in worth.order:
        share = worth.shares.shares[step]
        macs = worth.macs.shares[step].value if worth.macs else None
        rows.append(_Share(worth.labels[step], share.value, share.interval, macs))
    total = worth.macs.total if worth.macs else None
    rows.append(_Share("all steps together", worth.shares.total, None, total))
    title = f"Shapley value of each step: {worth.shares.method}"
    return Table("shapley", title, _SHARES, rows)
