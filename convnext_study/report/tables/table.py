"""A table: its rows, and columns that define how a row's value is read and formatted.

Files contain the values, screens the text made from them. `render` has the renderers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, model_validator

from convnext_study.report.tables import formatting
from convnext_study.report.tables.formatting import Format, common_prefix
from convnext_study.runs.metrics import Plain, Text

R = TypeVar("R")
Kind = Literal["number", "text", "interval"]
Tone = Literal["", "faint", "strong"]

_FORMATS: dict[Kind, Format] = {
    "number": formatting.number,
    "text": str,
    "interval": formatting.interval,
}


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table of rows of type ``R``.

    Args:
        key: its name in JSON and CSV; an interval is two columns there, ``KEY_low``, ``KEY_high``.
        heading: its name on screens, with the unit; or a function of the table's rows.
        value: of a row, or None; a pair for an interval. (default: the row's field named ``key``)
        kind: text is aligned left; numbers and intervals right.
        format: of a value that is neither None nor text. (default: the kind's)
        cell: a row's text on screens, where it shows more than the value.
        prefixed: written in millions or billions, as the heading says.
        tone: of a row's cell on screens.
        screen: False for a column of files only.
        csv: False for lists and objects, which only JSON has.
        min_width: of the terminal, in characters, below which the column is left out.
    """

    key: str
    heading: str | Callable[[Sequence[R]], str]
    value: Callable[[R], Any] | None = None
    kind: Kind = "number"
    format: Format | None = None
    cell: Callable[[R], str] | None = None
    prefixed: bool = False
    tone: Callable[[R], Tone] = lambda row: ""
    screen: bool = True
    csv: bool = True
    min_width: int = 0

    @property
    def left(self) -> bool:
        """Whether its cells are aligned left."""
        return self.kind == "text"

    def of(self, row: R) -> Any:
        """The value of a row."""
        if self.value is not None:
            return self.value(row)
        return row[self.key] if isinstance(row, dict) else getattr(row, self.key)

    def title(self, rows: Sequence[R]) -> str:
        """Its heading above these rows."""
        return self.heading if isinstance(self.heading, str) else self.heading(rows)

    @property
    def keys(self) -> list[str]:
        """Its columns in files."""
        return [
            f"{self.key}{end}" for end in (("_low", "_high") if self.kind == "interval" else ("",))
        ]

    def values(self, row: R) -> list[Any]:
        """The values of a row in files, one per key of ``keys``."""
        value = self.of(row)
        ends = (value or (None, None)) if self.kind == "interval" else (value,)
        return [_plain(end) for end in ends]

    def text(self, row: R, factor: float) -> str:
        """The cell of a row on a screen."""
        value = self.of(row)
        if self.cell is not None:
            return self.cell(row)
        if value is None or isinstance(value, str):
            return value or ""
        return (self.format or _FORMATS[self.kind])(value / factor if self.prefixed else value)


def file_column(
    key: str, value: Callable[[R], Any] | None = None, kind: Kind = "number"
) -> Column[R]:
    """A column of CSV and JSON only."""
    return Column(key, key, value, kind, screen=False)


def json_column(key: str, value: Callable[[R], Any] | None = None) -> Column[R]:
    """A column of JSON only, whose values may be lists and objects."""
    return Column(key, key, value, screen=False, csv=False)


def _plain(value: Any) -> Any:
    """Plain values, rounded to drop floating-point digits; None for infinity."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


class Cell(NamedTuple):
    """``text`` to show, ``value`` to sort by (None is last), ``link`` to an element of the page."""

    text: str
    value: Any
    tone: Tone
    link: str | None


class Heading(NamedTuple):
    """A column's heading on screen, and whether it is aligned left."""

    text: str
    left: bool


@dataclass(frozen=True)
class Table(Generic[R]):
    """``name`` is that of its files; ``notes`` are lines below it.

    ``link`` returns the id of a row's element on the page, to which its first text links.
    """

    name: str
    title: str
    columns: Sequence[Column[R]]
    rows: Sequence[R]
    notes: tuple[str, ...] = ()
    link: Callable[[R], str | None] = lambda row: None

    def with_notes(self, *notes: str) -> Table[R]:
        """The same table with these notes in place of its own."""
        return replace(self, notes=notes)

    def on_screen(self, width: int | None = None) -> tuple[list[Heading], list[list[Cell]]]:
        """Headings, and each row's cells, of the columns that are not empty."""
        headings: list[Heading] = []
        filled: list[list[Cell]] = []
        for column in self.columns:
            if not column.screen or (width is not None and width < column.min_width):
                continue
            factor, letter = common_prefix(map(column.of, self.rows) if column.prefixed else ())
            first = column.left and not any(heading.left for heading in headings)
            cells = [
                Cell(
                    column.text(row, factor),
                    column.values(row)[0],
                    column.tone(row),
                    self.link(row) if first else None,
                )
                for row in self.rows
            ]
            if not cells or any(cell.text for cell in cells):
                suffix = f", {letter}" if column.prefixed else ""
                headings.append(Heading(column.title(self.rows) + suffix, column.left))
                filled.append(cells)
        return headings, [list(row) for row in zip(*filled, strict=True)]

    @property
    def csv_names(self) -> list[str]:
        """The names of CSV's columns."""
        return [key for column in self.columns if column.csv for key in column.keys]

    def records(self, *, csv: bool = False) -> list[dict[str, Any]]:
        """Each row's plain values by key, as in JSON; with ``csv``, those of CSV only."""
        columns = [column for column in self.columns if column.csv or not csv]
        return [
            {
                key: value
                for column in columns
                for key, value in zip(column.keys, column.values(row), strict=True)
            }
            for row in self.rows
        ]

    def saved(self) -> dict[str, Any]:
        """The fields of `SavedTable`, ready for JSON. Links to elements of a page are left out."""
        headings, rows = self.on_screen()
        return {
            "name": self.name,
            "title": self.title,
            "notes": self.notes,
            "headings": headings,
            "rows": [[cell._replace(link=None) for cell in row] for row in rows],
            "csv_names": self.csv_names,
            "values": self.records(),
        }


class SavedTable(BaseModel):
    """A table read from `Table.saved`, for the same files and page. Raises ValidationError for
    other values."""

    name: Text
    title: str
    notes: tuple[str, ...]
    headings: list[Heading]
    rows: list[list[Cell]]
    csv_names: list[Text]
    values: list[dict[str, Any]]

    @model_validator(mode="after")
    def _check_shape(self) -> SavedTable:
        if {*map(len, self.rows)} - {len(self.headings)} or len(self.values) < len(self.rows):
            raise ValueError("rows of another length than the headings")
        json.dumps(self.values, allow_nan=False)
        plain = TypeAdapter(Plain)
        for record in self.values:
            for name in self.csv_names:
                plain.validate_python(record.get(name))
        return self

    def on_screen(self, width: int | None = None) -> tuple[list[Heading], list[list[Cell]]]:
        """Headings and cells, for any width."""
        return self.headings, self.rows

    def records(self, *, csv: bool = False) -> list[dict[str, Any]]:
        """As `Table.records`."""
        if not csv:
            return self.values
        return [{name: record.get(name) for name in self.csv_names} for record in self.values]
