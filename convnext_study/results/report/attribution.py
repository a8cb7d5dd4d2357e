"""What the steps are worth, shown: on the terminal, in files, and as a part of the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.records import write_bytes, write_json
from convnext_study.results.attribution import Attribution, Effect, Effects
from convnext_study.results.report import formats
from convnext_study.results.report.bars import Bar, bars
from convnext_study.results.report.export import to_csv
from convnext_study.results.report.tables import Cell, Column, Table, figure, words

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLUMNS = (
    Column("step", "step", numeric=False),
    Column("diff", "points"),
    Column("ci", "95 % interval"),
    Column("p", "p"),
    Column("p_adjusted", "Holm p"),
    Column("significant", "significant", numeric=False),
    Column("macs", "MACs"),
    Column("top1", "its top-1 %"),
    Column("network_macs", "its MACs"),
    Column("seeds", "seeds"),
)


def effects_table(effects: Effects) -> Table:
    """The same columns for every way of asking, those that it has."""
    unit, letter = macs_unit_of(effects)
    rows = [_cells(row, unit) for row in _all_rows(effects)]
    kept = [place for place, _ in enumerate(_COLUMNS) if any(row[place].text for row in rows)]
    columns = [_COLUMNS[place] for place in kept]
    heads = {"macs": f"MACs, {letter}", "network_macs": f"its MACs, {letter}"}
    heads["diff"] = f"{effects.effect_label}, points"
    return Table(
        effects.kind,
        effects.title,
        tuple(dataclasses.replace(one, head=heads.get(one.name, one.head)) for one in columns),
        [[row[place] for place in kept] for row in rows],
    )


def _cells(row: Effect, unit: float) -> list[Cell]:
    mark = "~" if row.significant is False else ""
    verdict = "" if row.significant is None else "yes" if row.significant else "no"
    ends = formats.interval(row.interval) if row.interval else ""
    return [
        words(row.label),
        figure(row.diff, mark + formats.signed(row.diff), faint=bool(mark)),
        Cell(ends, row.interval.low if row.interval else None),
        figure(row.p, _p(row.p)),
        figure(row.p_adjusted, _p(row.p_adjusted)),
        words(verdict),
        figure(row.macs, formats.signed(row.macs / unit, 3)),
        figure(row.top1),
        figure(row.network_macs, formats.plain(row.network_macs, 3, 1 / unit)),
        figure(row.seeds, str(row.seeds or "")),
    ]


def screen(effects: Effects) -> RenderableType:
    """A table for rich, its notes below it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    table = effects_table(effects)
    grid = Grid(title=Text(table.caption), box=box.SIMPLE_HEAD, title_justify="left")
    grid.show_edge, grid.padding = False, (0, 1, 0, 0)
    for place, column in enumerate(table.columns):
        head = Text(column.head.replace(", ", "\n"))
        grid.add_column(head, justify="right" if place else "left", no_wrap=place > 0)
    for cells, row in zip(table.rows, _all_rows(effects), strict=True):
        style = "bold" if row.significant else ""
        grid.add_row(*(Text(cell.text, style, no_wrap=True, overflow="ellipsis") for cell in cells))
    return Group(Text(""), grid, *map(Text, _notes(effects)))


def write_effects(effects: Effects, folder: Path) -> list[Path]:
    """Write ``KIND.json``, ``KIND.csv``, ``KIND.svg`` and ``KIND.png``; returns their paths."""
    from convnext_study.results.report.effects_figure import draw

    paths = [folder / f"{effects.kind}.{end}" for end in ("json", "csv", "svg", "png")]
    write_json(paths[0], dataclasses.asdict(effects))
    write_bytes(paths[1], to_csv(effects_table(effects)).encode())
    for path, data in zip(paths[2:], draw(effects), strict=True):
        write_bytes(path, data)
    return paths


def attribution_view(attribution: Attribution) -> dict[str, Any]:
    """All that the page shows of one road's steps."""
    return {
        "name": attribution.name,
        "words": [f"{one.title}. {' '.join(_notes(one))}" for one in attribution.tables],
        "rows": [_charts(one) for one in attribution.tables],
        "tables": [effects_table(one) for one in attribution.tables],
    }


def _charts(effects: Effects) -> list[Any]:
    """Points and MACs beside each other."""
    unit, letter = macs_unit_of(effects)
    title = effects.effect_label[0].upper() + effects.effect_label[1:]
    costs = [
        Bar(row.label, row.macs, None, f"{formats.signed(row.macs / unit)} {letter}")
        for row in effects.rows
    ]
    points = [_bar(row) for row in effects.rows]
    return [
        bars(f"{title}, points of top-1", points),
        bars("The same in MACs", costs, kind="cost"),
    ]


def _bar(row: Effect) -> Bar:
    mark = "~" if row.significant is False else ""
    adjusted = "" if row.p_adjusted is None else f", Holm {formats.p_value(row.p_adjusted)}"
    text = f"{mark}{formats.signed(row.diff)} ({formats.interval(row.interval)}{adjusted})"
    return Bar(row.label, row.diff, row.interval, text, row.significant is not False)


def _notes(effects: Effects) -> list[str]:
    unsure = any(row.significant is False for row in effects.rows)
    return [*effects.notes, *(["~: not significant."] if unsure else [])]


def _all_rows(effects: Effects) -> list[Effect]:
    return [*effects.rows, *([effects.total] if effects.total else [])]


def macs_unit_of(effects: Effects) -> tuple[float, str]:
    largest = max(max(abs(row.macs), row.network_macs or 0) for row in _all_rows(effects))
    return (1e9, "G") if largest >= 1e9 else (1e6, "M")


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
