"""The figures of a study: on the page, with a tip for each part, and as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from convnext_study.report.figures.charts import (
    Curve,
    Panel,
    Point,
    bars,
    cost,
    curves,
    quantities,
)
from convnext_study.report.figures.inline import inline
from convnext_study.report.figures.roadmap import roadmap
from convnext_study.report.figures.rows import NARROW, WIDE
from convnext_study.report.figures.style import save
from convnext_study.report.tables import formatting
from convnext_study.report.tables.results import PAPER_LABEL, is_side, macs_prefix, mean_in_words
from convnext_study.results.load import StudyResults
from convnext_study.results.rows import ResultRow
from convnext_study.runs.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("macs", "params", "images_per_s")


def write_figures(study: StudyResults, folder: Path) -> list[Path]:
    """Write ``roadmap``, ``cost`` and ``curves`` in every kind, where the study has their data."""
    figures = {}
    if study.drawn and study.done:
        figures["roadmap"] = roadmap(study.rows, study.meta)
        figures["curves"] = curves(_curves(study, {}), quantities(study.counted))
    if len({row.macs for row in study.done}) > 1:
        points, unit = _points(study, "macs", {})
        figures["cost"] = cost(
            points,
            (study.metric.axis, f"{unit}; points have the row numbers of the results"),
            (6.5, 4.2),
        )
    return [path for name, figure in figures.items() for path in save(figure, folder, name)]


def road_figures(study: StudyResults, ids: Mapping[str, str], key: str) -> list[Markup]:
    """The road map for desktops and phones. ``ids`` are those of the panels that its rows open."""
    buttons = {}
    for row in study.rows:
        tip = describe_row(study, row)
        buttons[row.name] = {
            "class": "step",
            "role": "button",
            "tabindex": 0,
            "aria-expanded": "false",
            "aria-controls": ids[row.name],
            "aria-label": f"{tip.replace(chr(10), '; ')}. Show the step",
            "data-tip": tip,
        }
    summary = f"{study.metric.title} and MACs of every row of {study.meta.title}"
    label = f"{summary}; select one for details"
    layouts = {"wide": WIDE, "narrow": NARROW}
    return [
        inline(
            roadmap(study.rows, study.meta, layout, attrs=buttons),
            f"{key}-{name}",
            class_=f"road {name}",
            role="group",
            aria_label=label,
        )
        for name, layout in layouts.items()
    ]


def describe_row(study: StudyResults, row: ResultRow) -> str:
    """The row's numbers, one per line: for tips and screen readers."""
    if row.value is None:
        return f"{row.label}\n{row.state}"
    seeds = formatting.plural(len(row.seeds), "seed")
    lines = [row.label, f"{row.metric.label} {mean_in_words(row)}, {seeds}"]
    if test := study.tests.primary.get(row.name):
        verdict = {None: "not tested", True: "significant", False: "not significant"}
        change = formatting.difference(test.difference.diff, row.metric)
        lines.append(f"{change}, {verdict[test.significant]}")
        interval = formatting.interval(test.difference.interval, row.metric.decimals)
        corrected = "for other test images"
        if test.p_adjusted is not None:
            corrected = f"Holm {formatting.p_equals(test.p_adjusted)}"
        lines.append(f"interval {interval}, {corrected}")
    if row.macs is not None:
        lines.append(f"{formatting.with_prefix(row.macs, macs_prefix(study.rows))} MACs")
    if row.params is not None:
        lines.append(f"{row.params / 1e6:.3g} M parameters")
    if study.meta.compare_paper and row.paper_value is not None:
        lines.append(f"{PAPER_LABEL}: {formatting.with_unit(row.paper_value, row.metric)}")
    return "\n".join(lines)


def all_curves(study: StudyResults, ids: Mapping[str, str], key: str) -> list[Markup]:
    """A chart of all runs per quantity of `quantities`, from the first row to the last."""
    runs = _curves(study, ids)
    return [
        _chart(curves(runs, [quantity]), f"{key}-q{i}", f"{quantity.title} against epoch")
        for i, quantity in enumerate(quantities(study.counted))
    ]


def _curves(study: StudyResults, ids: Mapping[str, str]) -> list[Curve]:
    """The runs that have an epoch; the first of a row has its label."""
    last = max(len(study.rows) - 1, 1)
    return [
        Curve(
            record.epochs,
            i / last,
            "" if number else row.label,
            record.status == "done",
            _describe_run(row, record, ids),
        )
        for i, row in enumerate(study.rows)
        for number, record in enumerate(study.records(row.name))
        if record.epochs
    ]


def _describe_run(row: ResultRow, record: Record, ids: Mapping[str, str]) -> dict[str, str]:
    panel = ids.get(row.name, "")
    evaluated = [line for line in record.epochs if line.value is not None]
    last = evaluated[-1] if evaluated else record.epochs[-1]
    value = "" if last.value is None else f": {formatting.with_unit(last.value, row.metric)}"
    tip = f"{row.label}, seed {record.run.seed}\nepoch {last.epoch}{value}"
    identity = {"id": f"{panel}-{record.run.seed}", "data-row": panel}
    return {"class": "curve", "data-tip": tip, **identity}


def step_curves(
    study: StudyResults, row: ResultRow, ids: Mapping[str, str]
) -> list[dict[str, str]]:
    """The curves of `all_curves` to draw again: a row's, over those of the row it is compared with.

    Each has the end of its ids (they start with a chart's), its tip and its class.
    """
    rows = {each.name: each for each in study.rows}
    return [
        {
            **_describe_run(rows[name], record, ids),
            "class": kind + ("" if record.status == "done" else " unfinished"),
        }
        for name, kind in ((row.parent, "before"), (row.name, "after"))
        if name in rows
        for record in study.records(name)
        if record.epochs
    ]


def _chart(figure: Figure, key: str, title: str) -> Markup:
    label = f"{title}; the numbers are in the tables"
    return inline(figure, key, class_="chart", role="group", aria_label=label)


def cost_charts(study: StudyResults, ids: Mapping[str, str], key: str) -> list[Markup]:
    """The metric against each cost; points are numbered as the rows and link to their panels."""
    charts = {field: _points(study, field, ids) for field in COSTS}
    return [
        _chart(
            cost(points, (study.metric.axis, unit)),
            f"{key}-{field}",
            f"{study.metric.label} against {unit}",
        )
        for field, (points, unit) in charts.items()
        if len({point.cost for point in points}) > 1
    ]


def _points(study: StudyResults, field: str, ids: Mapping[str, str]) -> tuple[list[Point], str]:
    """The finished rows' cost and value, and the unit of the cost."""
    size, letter = macs_prefix(study.rows)
    divisor, unit, digits = {
        "macs": (size, f"MACs, {letter}", 2),
        "params": (1e6, "parameters, M", 2),
        "images_per_s": (1.0, "training images/s", 0),
    }[field]
    points = []
    for number, row in enumerate(study.rows, 1):
        if row.value is None or getattr(row, field) is None:
            continue
        value = getattr(row, field) / divisor
        tip = f"{number}. {row.label}\n{row.metric.label} {mean_in_words(row)}\n{unit}: "
        attributes = {"class": "mark", "data-tip": tip + formatting.number(value, digits)}
        attributes |= {"href": f"#{ids[row.name]}"} if row.name in ids else {}
        points.append(Point(number, value, row.value, row.std, not is_side(row), attributes))
    return points, unit


def bar_chart(panel: Panel) -> Markup:
    """Bars from zero, with their labels and numbers as tips."""
    tips = [str((bar.attrs or {})["data-tip"]).replace("\n", " ") for bar in panel.bars]
    label = f"{panel.title}: {'; '.join(tips)}"
    return inline(bars([[panel]]), "", class_="bars", role="img", aria_label=label)
