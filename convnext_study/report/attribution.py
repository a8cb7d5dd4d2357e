"""Attributions as tables, as bar charts in files, and as a section of the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from convnext_study.report.figures.charts import Bar, Panel, bars
from convnext_study.report.figures.style import save
from convnext_study.report.page_figures import bar_chart
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.comparison import decision_columns
from convnext_study.report.tables.formatting import (
    common_prefix,
    digits,
    interval,
    marked,
    p_equals,
    signed,
)
from convnext_study.report.tables.results import SIGNIFICANT
from convnext_study.report.tables.table import Tone
from convnext_study.results.attribution import Attribution
from convnext_study.results.effects import Effect, Effects
from convnext_study.results.metric_spec import MetricSpec

_WIDE = 130  # characters; the terminal width from which every column is shown


def effects_table(effects: Effects) -> Table[Effect]:
    """One row per effect, the total last; all methods have the same columns."""
    metric = effects.metric

    def tone(row: Effect) -> Tone:
        return "strong" if row.significant else ""

    change = ", ".join(filter(None, (effects.effect_label, metric.step_unit)))
    tested: list[Column[Effect]] = decision_columns(getattr, metric.decimals, min_width=_WIDE)
    columns: list[Column[Effect]] = [
        Column("name", "name", kind="text", screen=False),
        Column("label", "step", kind="text", tone=tone),
        Column("diff", change, cell=lambda row: marked(row.diff, row.significant, metric.decimals)),
        *tested,
        Column("macs", "MACs", format=partial(signed, digits=3), prefixed=True),
        Column("value", f"its {metric.heading}", format=digits(metric.decimals)),
        Column("network_macs", "its MACs", format=digits(3), prefixed=True),
        Column("seeds", "seeds", format=str),
    ]
    rows = [*effects.rows, *([effects.total] if effects.total else [])]
    mark = [f"{SIGNIFICANT}."] if any(row.significant for row in rows) else []
    return Table(effects.kind, effects.title, columns, rows, (*effects.notes, *mark))


def draw_effects(effects: Effects, folder: Path) -> list[Path]:
    """Write ``KIND.svg`` and ``KIND.png``; returns their paths."""
    note = "Lines are 95 % intervals."
    if any(row.significant is not None for row in effects.rows):
        note += f" Open bars are not significant; {SIGNIFICANT}."
    figure = bars([panels(effects)], effects.title, note)
    return save(figure, folder, effects.kind, ("svg", "png"))


def attribution_view(attribution: Attribution) -> dict[str, Any]:
    """What the page shows of one road's steps: bars of each table, and the tables."""
    tables = [effects_table(effects) for effects in attribution.tables]
    return {
        "name": attribution.name,
        "words": [f"{table.title}. {' '.join(table.notes)}" for table in tables],
        "rows": [[bar_chart(panel) for panel in panels(effects)] for effects in attribution.tables],
        "tables": tables,
    }


def panels(effects: Effects) -> list[Panel]:
    """The metric and MACs side by side."""
    prefix = common_prefix(row.macs for row in effects.rows)
    macs = []
    for row in effects.rows:
        text = f"{signed(row.macs / prefix.factor)} {prefix.letter}"
        macs.append(Bar(row.label, row.macs, text, attrs=_tip(row, text)))
    title = effects.effect_label[0].upper() + effects.effect_label[1:]
    metric = effects.metric
    unit = f"{metric.step_unit} of {metric.label}" if metric.step_unit else metric.label
    values = Panel(f"{title}, {unit}", [_bar(row, metric) for row in effects.rows])
    return [values, Panel("The same in MACs", macs, "grey")]


def _bar(row: Effect, metric: MetricSpec) -> Bar:
    adjusted = "" if row.p_adjusted is None else f", Holm {p_equals(row.p_adjusted)}"
    text = marked(row.diff, row.significant, metric.decimals)
    detail = f"{text} ({interval(row.interval, metric.decimals)}{adjusted})"
    certain = row.significant is not False
    return Bar(row.label, row.diff, text, row.interval, certain, _tip(row, detail))


def _tip(row: Effect, detail: str) -> dict[str, str]:
    return {"class": "mark", "data-tip": f"{row.label}\n{detail}"}
