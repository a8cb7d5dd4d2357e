"""A `Table` as plain values and back: its numbers, and the texts that a screen shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from convnext_study.report.tables.formatting import common_prefix
from convnext_study.report.tables.table import Column, Table


def to_plain(table: Table[Any]) -> dict[str, Any]:
    """All that `from_plain` needs, ready for JSON. Links to parts of a page are left out."""
    return {
        "name": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "rows": len(table.rows),
        "columns": [_column(column, table) for column in table.columns],
    }


def from_plain(values: Mapping[str, Any]) -> Table[int]:
    """The table that `to_plain` was given: rows are numbers, from 0.

    Raises KeyError, TypeError or IndexError for other values.
    """
    columns = []
    for about in values["columns"]:
        value, text, tone = (list(about[part]) for part in ("values", "texts", "tones"))
        columns.append(
            Column[int](
                key=str(about["key"]),
                heading=str(about["heading"]),
                value=value.__getitem__,
                kind=about["kind"],
                cell=text.__getitem__,
                tone=tone.__getitem__,
                screen=bool(about["screen"]),
                csv=bool(about["csv"]),
            )
        )
    notes = tuple(map(str, values["notes"]))
    rows = range(int(values["rows"]))
    return Table(str(values["name"]), str(values["title"]), columns, rows, notes)


def _column(column: Column[Any], table: Table[Any]) -> dict[str, Any]:
    factor, letter = common_prefix(map(column.value, table.rows) if column.prefixed else ())
    ends = map(column.values, table.rows)
    whole = column.kind == "interval"
    text = partial(column.text, factor=factor)
    return {
        "key": column.key,
        "heading": column.title(table.rows) + (f", {letter}" if column.prefixed else ""),
        "kind": column.kind,
        "values": [(one if None not in one else None) if whole else one[0] for one in ends],
        "texts": [text(row) if column.screen else "" for row in table.rows],
        "tones": [column.tone(row) for row in table.rows],
        "screen": column.screen,
        "csv": column.csv,
    }
