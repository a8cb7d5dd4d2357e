"""A `Table` as plain values and back: its numbers, and the texts that a screen shows of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel, TypeAdapter, model_validator

from convnext_study.report.tables.formatting import common_prefix
from convnext_study.report.tables.table import Column, Kind, Table, Tone
from convnext_study.runs.metrics import Count, Finite, Plain, Text

_Ends = tuple[Finite, Finite] | None


def to_plain(table: Table[Any]) -> dict[str, Any]:
    """All that `SavedTable` needs, ready for JSON. Links to parts of a page are left out."""
    return {
        "name": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "rows": len(table.rows),
        "columns": [_column(column, table) for column in table.columns],
    }


class SavedColumn(BaseModel):
    """A column as `to_plain` writes it: its values, and of each row the text and tone."""

    key: Text
    heading: Text
    kind: Kind
    values: list[Any]
    texts: list[str]
    tones: list[Tone]
    screen: bool
    csv: bool

    @model_validator(mode="after")
    def _check_values(self) -> SavedColumn:
        kinds: dict[Kind, Any] = {"interval": _Ends, "text": Plain, "number": Plain}
        if self.csv or self.kind == "interval":  # what only JSON has may be anything
            check = TypeAdapter(kinds[self.kind]).validate_python
            for value in self.values:
                check(value)
        return self

    def column(self) -> Column[int]:
        """With rows that are numbers, from 0."""
        return Column[int](
            key=self.key,
            heading=self.heading,
            value=self.values.__getitem__,
            kind=self.kind,
            cell=self.texts.__getitem__,
            tone=self.tones.__getitem__,
            screen=self.screen,
            csv=self.csv,
        )


class SavedTable(BaseModel):
    """A table as `to_plain` writes it. Raises ValidationError for other values."""

    name: Text
    title: str
    notes: list[str]
    rows: Count
    columns: list[SavedColumn]

    @model_validator(mode="after")
    def _check_rows(self) -> SavedTable:
        for one in self.columns:
            if {len(one.values), len(one.texts), len(one.tones)} != {self.rows}:
                raise ValueError(f"{one.key}: is not of {self.rows} rows")
        if not self.columns and self.rows:
            raise ValueError("rows without a column")
        return self

    def table(self) -> Table[int]:
        """The table that `to_plain` was given: rows are numbers, from 0."""
        columns = [one.column() for one in self.columns]
        return Table(self.name, self.title, columns, range(self.rows), tuple(self.notes))


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
