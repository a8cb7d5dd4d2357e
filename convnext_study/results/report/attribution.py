"""What the steps are worth, shown: as a table, as bars in files, and as a part of the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from convnext_study.records import write_bytes
from convnext_study.results.attribution import Attribution, Effect, Effects
from convnext_study.results.report.bars import Bar, bars
from convnext_study.results.report.effects_figure import draw
from convnext_study.results.report.tables import Column, Table
from convnext_study.results.report.tables.comparison import yes_no
from convnext_study.results.report.tables.formatting import (
    common_prefix,
    digits,
    interval,
    p_equals,
    p_value,
    signed,
    with_prefix,
)
from convnext_study.results.report.tables.render import write_tables


def effects_table(effects: Effects) -> Table[Effect]:
    """One row an effect, the total last; whichever way of asking, the same columns."""
    columns: list[Column[Effect]] = [
        Column("name", "name", lambda row: row.name, "text", screen=False),
        Column("label", "step", lambda row: row.label, "text", tone=_tone),
        Column("diff", f"{effects.effect_label}, points", lambda row: row.diff, cell=_diff),
        Column("ci", "95 % interval", lambda row: row.interval, "interval"),
        Column("p", "p", lambda row: row.p, format=p_value),
        Column("p_adjusted", "Holm p", lambda row: row.p_adjusted, format=p_value),
        Column("significant", "significant", lambda row: row.significant, "text", yes_no),
        Column(
            "macs", "MACs", lambda row: row.macs, format=partial(signed, digits=3), prefixed=True
        ),
        Column("top1", "its top-1 %", lambda row: row.top1),
        Column(
            "network_macs",
            "its MACs",
            lambda row: row.network_macs,
            format=digits(3),
            prefixed=True,
        ),
        Column("seeds", "seeds", lambda row: row.seeds, format=str),
    ]
    rows = [*effects.rows, *([effects.total] if effects.total else [])]
    unsure = ["~: not significant."] if any(row.significant is False for row in rows) else []
    return Table(effects.kind, effects.title, columns, rows, (*effects.notes, *unsure))


def _tone(row: Effect) -> Any:
    return "strong" if row.significant else ""


def _diff(row: Effect) -> str:
    return ("~" if row.significant is False else "") + signed(row.diff)


def write_effects(effects: Effects, folder: Path) -> list[Path]:
    """Write ``KIND.json``, ``KIND.csv``, ``KIND.svg`` and ``KIND.png``; returns their paths."""
    paths = write_tables([effects_table(effects)], folder, ("json", "csv"))
    for end, data in zip(("svg", "png"), draw(effects), strict=True):
        paths.append(folder / f"{effects.kind}.{end}")
        write_bytes(paths[-1], data)
    return paths


def attribution_view(attribution: Attribution) -> dict[str, Any]:
    """All that the page shows of one road's steps: bars of each table, and the tables."""
    tables = [effects_table(one) for one in attribution.tables]
    return {
        "name": attribution.name,
        "words": [f"{table.title}. {' '.join(table.notes)}" for table in tables],
        "rows": [_charts(one) for one in attribution.tables],
        "tables": tables,
    }


def _charts(effects: Effects) -> list[Any]:
    """Points and MACs beside each other."""
    prefix = common_prefix(row.macs for row in effects.rows)
    macs = [Bar(row.label, row.macs, None, with_prefix(row.macs, prefix)) for row in effects.rows]
    title = effects.effect_label[0].upper() + effects.effect_label[1:]
    return [
        bars(f"{title}, points of top-1", [_bar(row) for row in effects.rows]),
        bars("The same in MACs", macs, kind="cost"),
    ]


def _bar(row: Effect) -> Bar:
    adjusted = "" if row.p_adjusted is None else f", Holm {p_equals(row.p_adjusted)}"
    text = f"{_diff(row)} ({interval(row.interval)}{adjusted})"
    return Bar(row.label, row.diff, row.interval, text, row.significant is not False)
