"""The figures of a study: on the page with what each part says when pointed at, and as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from convnext_study.records import Record
from convnext_study.results.report import formats
from convnext_study.results.report.figures.attribution import Panel, bars
from convnext_study.results.report.figures.cost import Point, cost
from convnext_study.results.report.figures.curves import QUANTITIES, Curve, chart, charts
from convnext_study.results.report.figures.inline import inline
from convnext_study.results.report.figures.roadmap import FILE, NARROW, WIDE, roadmap
from convnext_study.results.report.figures.style import COLOURS, ramp, save
from convnext_study.results.report.gather import Study
from convnext_study.results.report.tables.results import is_side
from convnext_study.results.summary import Row
from convnext_study.results.table import macs_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = ("macs", "params", "images_per_s")


def write_figures(study: Study, folder: Path) -> list[Path]:
    """Write ``roadmap``, ``cost`` and ``curves`` in every kind, where there is what they show."""
    paths = []
    if study.drawn and study.done:
        paths += save(
            roadmap(study.rows, study.meta, FILE, significant=_told(study)), folder, "roadmap"
        )
    if len({row.macs for row in study.done}) > 1:
        points, unit = _points(study, "macs")
        paths += save(cost(points, f"{unit}; numbers as in the table", (6.5, 4.2)), folder, "cost")
    if study.drawn and study.done:
        paths += save(_file_curves(study), folder, "curves")
    return paths


def road_figures(study: Study, ids: dict[str, str]) -> list[Markup]:
    """The road map for desks and for phones. ``ids`` are of the panels that its rows open."""
    label = f"Accuracy and MACs of every row of {study.meta.title}"
    about = {"role": "group", "aria_label": f"{label}; each is a button that shows its details"}
    groups = {ids[row.name]: _button(study, row, ids[row.name]) for row in study.rows}
    made = []
    for layout, name in ((WIDE, "wide"), (NARROW, "narrow")):
        figure = roadmap(study.rows, study.meta, layout, significant=_told(study), keys=ids)
        key = f"{next(iter(ids.values()))}-{name}"
        made.append(inline(figure, key, groups, class_=f"road {name}", **about))
    return made


def _told(study: Study) -> dict[str, bool | None]:
    return {row.name: study.tests.told(row.name) for row in study.rows}


def _button(study: Study, row: Row, panel: str) -> dict[str, Any]:
    words = describe_row(study, row)
    return {
        "class": "step",
        "role": "button",
        "tabindex": 0,
        "aria-expanded": "false",
        "aria-controls": panel,
        "aria-label": f"{words.replace(chr(10), '; ')}. Show the step",
        "data-tip": words,
    }


def describe_row(study: Study, row: Row) -> str:
    """The row's numbers, a line each: for whoever points at it or hears it."""
    if row.top1 is None:
        return f"{row.label}\n{row.state}"
    lines = [row.label, f"top-1 {formats.top1(row)} %, {formats.plural(len(row.seeds), 'seed')}"]
    if test := study.tests.plain.get(row.name):
        verdict = "told from noise" if test.distinguishable else "not told from noise"
        lines.append(f"{formats.signed(test.difference.points)} points, {verdict}")
        corrected = formats.p_value(test.p_corrected)
        lines.append(f"interval {formats.interval(test.difference.interval)}, Holm {corrected}")
    if row.macs is not None:
        lines.append(f"{formats.count(row.macs, study.rows)} MACs".replace("\u00a0", " "))
    if row.params is not None:
        lines.append(f"{row.params / 1e6:.3g} M parameters")
    if study.meta.compare_paper and row.paper_top1 is not None:
        lines.append(f"paper, ImageNet-1K: {row.paper_top1:.2f} %")
    return "\n".join(lines)


def all_curves(study: Study, ids: Mapping[str, str], key: str) -> list[Markup]:
    """A chart for each of `QUANTITIES` of every run, coloured from the first row to the last."""
    last = max(len(study.rows) - 1, 1)
    curves, groups = [], {}
    for place, row in enumerate(study.rows):
        for record in study.records(row.name):
            name = _curve_key(ids[row.name], record)
            colour = COLOURS[f"c{round(7 * place / last)}"]
            if record.epochs:
                curves.append(Curve(record.epochs, colour, "", record.status != "done", name))
                tip = {"data-row": ids[row.name], "data-tip": _describe_run(row, record)}
                groups[name] = {"class": "curve", **tip}
    return [
        _chart(chart(curves, place), f"{key}-q{place}", groups, f"{name} against epoch")
        for place, (name, _) in enumerate(QUANTITIES if curves else ())
    ]


def step_curves(study: Study, row: Row, ids: Mapping[str, str]) -> list[dict[str, str]]:
    """The curves of `all_curves` to draw again: a row's, over those of the row it is compared with.

    Each has the end of its ids (they begin with a chart's), its class and its words.
    """
    rows = {one.name: one for one in study.rows}
    return [
        {
            "id": _curve_key(ids[name], record),
            "class": kind + ("" if record.status == "done" else " unfinished"),
            "tip": _describe_run(rows[name], record),
        }
        for name, kind in ((row.parent, "before"), (row.name, "after"))
        if name in rows
        for record in study.records(name)
        if record.epochs
    ]


def _curve_key(panel: str, record: Record) -> str:
    return f"{panel}-{record.run.seed}"


def _describe_run(row: Row, record: Record) -> str:
    last = record.epochs[-1]
    return f"{row.label}, seed {record.run.seed}\nepoch {last.epoch}: {last.top1:.2f} %"


def _chart(figure: Figure, key: str, groups: Mapping[str, Mapping[str, Any]], words: str) -> Markup:
    label = f"{words}; the numbers are in the tables"
    role = "group" if any(about.get("href") for about in groups.values()) else "img"
    return inline(figure, key, groups, class_="chart", role=role, aria_label=label)


def _file_curves(study: Study) -> Figure:
    colours = ramp(len(study.rows))
    return charts(
        [
            Curve(record.epochs, colour, "" if number else row.label, record.status != "done")
            for row, colour in zip(study.rows, colours, strict=True)
            for number, record in enumerate(study.records(row.name))
            if record.epochs
        ]
    )


def cost_charts(study: Study, ids: Mapping[str, str], key: str) -> list[Markup]:
    """Accuracy against each cost; points are numbered as the rows and lead to their panels."""
    made = []
    for field in COSTS:
        points, unit = _points(study, field)
        if len({point.cost for point in points}) < 2:
            continue
        groups = {}
        for point in points:
            row = study.rows[point.number - 1]
            tip = f"{point.number}. {row.label}\ntop-1 {formats.top1(row)} %\n{unit}: "
            tip += formats.plain(point.cost, 0 if field == "images_per_s" else 2)
            link = {"href": f"#{ids[row.name]}"} if row.name in ids else {}
            groups[point.key] = {"class": "mark", "data-tip": tip, **link}
        words = f"top-1 accuracy against {unit}"
        made.append(_chart(cost(points, unit), f"{key}-{field}", groups, words))
    return made


def _points(study: Study, field: str) -> tuple[list[Point], str]:
    """The finished rows' cost and accuracy, and the unit of the cost."""
    size, letter = macs_unit(study.rows)
    unit, name = {
        "macs": (size, f"MACs, {letter}"),
        "params": (1e6, "parameters, M"),
        "images_per_s": (1.0, "training images/s"),
    }[field]
    return [
        Point(place, cost / unit, row.top1, row.sd, not is_side(row), f"k{place}")
        for place, row in enumerate(study.rows, 1)
        if row.top1 is not None and (cost := getattr(row, field)) is not None
    ], name


def bar_chart(panel: Panel) -> Markup:
    """Bars about zero, each with its label and number to read when pointed at."""
    made = [replace(bar, key=f"k{place}") for place, bar in enumerate(panel.bars)]
    groups = {bar.key: {"class": "mark", "data-tip": f"{bar.label}\n{bar.detail}"} for bar in made}
    spoken = "; ".join(f"{bar.label} {bar.detail}" for bar in made)
    about = {"class_": "bars", "role": "img", "aria_label": f"{panel.title}: {spoken}"}
    return inline(bars([[replace(panel, bars=made)]]), "", groups, **about)
