"""The road-map figure: bars of the metric along the road, MACs beside them (as the paper's Fig. 2).

It draws any study as bars: rows without sections form one group. Panels measure y in inches from
the top, so that a row has the same height in a figure of 1 row as of 17.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.report.figures import style
from convnext_study.report.figures.rows import (
    BAR,
    FILE,
    INDENT,
    ROAD,
    Axis,
    Layout,
    draw_bar,
    error_bar,
    legend_handles,
    road_line,
    value_axis,
    write_row,
)
from convnext_study.report.figures.style import COLOURS, FAINT, mark
from convnext_study.report.tables.results import SIGNIFICANT, macs_prefix
from convnext_study.results.effects import detectable_note
from convnext_study.results.rows import (
    ResultRow,
    StudyTitle,
    describe_runs,
    shared_metric,
    study_title,
)
from convnext_study.roadmap.paper import SECTIONS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEADING, _LINE = 0.38, 0.19  # inches
_CAPTION = 138  # characters per line


def draw(
    rows: Sequence[ResultRow],
    folder: Path,
    meta: StudyTitle | None = None,
    kinds: Sequence[str] = ("svg", "png"),
) -> list[Path]:
    """Write ``roadmap.svg`` and ``roadmap.png`` (or ``kinds``) and return their paths."""
    return style.save(roadmap(rows, meta or study_title(rows)), folder, "roadmap", kinds)


@style.style()
def roadmap(
    rows: Sequence[ResultRow],
    meta: StudyTitle,
    layout: Layout = FILE,
    *,
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
    caption: Sequence[str] | None = None,
) -> Figure:
    """Rows in the order given, those without a result as "not run".

    ``attrs`` are each row's, for `style.mark` on the page; ``caption`` replaces the one below a
    file's figure.
    """
    metric = shared_metric(rows)
    axis = value_axis(_values(rows, meta), metric)
    caption_lines = _caption(rows, meta, axis) if caption is None and layout.file else caption or []
    handles = legend_handles(rows, meta)
    tops, sections, height = _layout_rows(rows, layout)
    legend = 0.24 * (len(handles) if layout.phone else bool(handles))
    bottom = 0.56 + legend + _LINE * len(caption_lines) + (0.2 if caption_lines else 0)
    full_height = bottom + height + (1.02 if layout.file else 0.14 if layout.phone else 0.34)
    figure = style.new_figure(layout.width, full_height)
    labels, start = _labels(figure, rows, layout)
    end = layout.width - layout.margin

    def panel(left: float, right: float, **limits: Any) -> Axes:
        axes = style.add_panel(figure, left, bottom, right, bottom + height)
        axes.set(ylim=(height, 0), **limits)
        return axes

    most_macs = max((row.macs or 0 for row in rows), default=0) or 1
    back = panel(0, layout.width, xlim=(0, layout.width))
    bars = panel(start, end - layout.bars, xlim=(axis.low, axis.high))
    bars.set_xticks(axis.ticks, [f"{value:g}" for value in axis.ticks])
    macs = panel(end - layout.macs[0], end - layout.macs[1], xlim=(0, most_macs))
    _draw_background(back, rows, sections, layout)
    bars.vlines(axis.ticks, 0, height, color=style.RULE, linewidth=0.8, zorder=0)
    bars.set_xlabel(metric.axis + (" (cut axis)" if axis.cut else ""))
    for row, label, top in zip(rows, labels, tops, strict=True):
        own_attrs = (attrs or {}).get(row.name)
        if own_attrs:
            area = back.barh(top + layout.row / 2, layout.width, layout.row, color="#ffffff")
            mark(area[0], own_attrs, "hit")
        y = top + layout.bar
        parts = write_row(back, row, label, top, layout, macs_prefix(rows))
        parts += draw_bar(bars, row, y, axis, meta.compare_paper)
        parts += macs.barh(y, row.macs or 0, 0.6 * BAR, color=COLOURS["grey"])
        for part in parts:
            mark(part, own_attrs)
    road = bars.plot(*road_line(rows, [top + layout.bar for top in tops]), **ROAD, clip_on=False)
    mark(road[0], {"class": "over"} if attrs else None)
    if layout.file:
        _draw_frame(figure, rows, meta, caption_lines)
    if handles:
        _draw_legend(figure, handles, layout, bottom - 0.52 - legend)
    return figure


def _layout_rows(
    rows: Sequence[ResultRow], layout: Layout
) -> tuple[list[float], list[tuple[str | None, float, float]], float]:
    """The rows' tops, the paper's sections with their tops and ends, and the total height."""
    y, tops, sections = 0.0, [], []
    for section, members in itertools.groupby(rows, key=lambda row: row.section):
        top = y
        y += _HEADING if section else 0
        for _ in members:
            tops.append(y)
            y += layout.row
        sections.append((section, top, y))
    return tops, sections, y


def _labels(figure: Figure, rows: Sequence[ResultRow], layout: Layout) -> tuple[list[str], float]:
    """Labels, truncated where they would leave no room for bars, and where the bars may start."""
    labels, widest = [], 0.0
    for row in rows:
        indent = 0 if row.adopted else INDENT
        label, width = style.fit(figure, row.label, layout.label - indent, fontsize=10.5)
        labels.append(label)
        widest = max(widest, indent + width)
    return labels, 0.2 if layout.phone else layout.margin + widest + 0.2


def _values(rows: Sequence[ResultRow], meta: StudyTitle) -> list[float]:
    """The values that the value axis must cover."""
    done = [row for row in rows if row.value is not None]
    values = [value for row in done for value in (row.value or 0.0, *error_bar(row))]
    papers = [row.paper_value for row in done if row.paper_value is not None]
    return values + (papers if meta.compare_paper else [])


def _draw_background(
    back: Axes,
    rows: Sequence[ResultRow],
    sections: Sequence[tuple[str | None, float, float]],
    layout: Layout,
) -> None:
    """A band behind every other section, the sections' names, and the columns' headings."""
    for i, (name, top, below) in enumerate(sections):
        if i % 2 == 0 and len(sections) > 1:
            back.fill_between((0, layout.width), top, below, color=COLOURS["band"], linewidth=0)
        if name:
            font: dict[str, Any] = {"fontweight": "bold", "color": COLOURS["deep"]}
            text = style.clean(SECTIONS.get(name, name))
            back.text(layout.margin, top + 0.19, text, fontsize=10.5, va="center", **font)
    if not layout.phone:
        gain = "gain" if any(row.gain is not None for row in rows) else ""
        macs = f"MACs, {macs_prefix(rows)[1]}"
        for column, head in (
            (layout.score, shared_metric(rows).heading),
            (layout.gain, gain),
            (0, macs),
        ):
            x = layout.width - layout.margin - column
            back.text(x, -0.15, head, color=FAINT, ha="right")


def _draw_legend(figure: Figure, handles: list[Artist], layout: Layout, y: float) -> None:
    width, height = figure.get_size_inches()
    at, columns = (layout.margin / width, y / height), 1 if layout.phone else len(handles)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=at, ncols=columns, borderaxespad=0
    )


def _draw_frame(
    figure: Figure, rows: Sequence[ResultRow], meta: StudyTitle, caption: Sequence[str]
) -> None:
    """Title above, caption below."""
    width, height = figure.get_size_inches()
    x, faint = FILE.margin / width, {"color": FAINT}
    title = style.clean(meta.title)
    figure.text(x, 1 - 0.36 / height, title, fontsize=15, fontweight="bold")
    subtitle = textwrap.shorten(
        style.clean(" · ".join(describe_runs(rows, meta))), _CAPTION, placeholder=" …"
    )
    figure.text(x, 1 - 0.63 / height, subtitle, fontsize=10.5, **faint)
    for i, line in enumerate(reversed(caption)):
        figure.text(x, (0.16 + _LINE * i) / height, line, fontsize=9, **faint)


def _caption(rows: Sequence[ResultRow], meta: StudyTitle, axis: Axis) -> list[str]:
    """Where the numbers come from, and what they are comparable with."""
    recipes = ", ".join(dict.fromkeys(row.recipe for row in rows if row.recipe))
    source = f"These were measured in this study's runs ({recipes}); they are not the paper's."
    if meta.compare_paper:
        source += " Diamonds are, on ImageNet-1K."
    metric = shared_metric(rows)
    start = f"{axis.low:g} {metric.unit}".rstrip()
    cut = f"The axis is cut: it starts at {start}, not at 0." if axis.cut else ""
    lower = "" if metric.higher_is_better else f"A lower {metric.label} is better."
    stars = f"{SIGNIFICANT}." if any(row.significant for row in rows) else ""
    sentences = (source, stars, detectable_note(rows), cut, lower)
    return [line for text in sentences for line in textwrap.wrap(style.clean(text), _CAPTION)]
