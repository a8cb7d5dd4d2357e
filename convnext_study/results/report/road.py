"""The road map as an SVG for the page: a bar a step, MACs beside it, and a button on every row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from convnext_study.results.axis import Axis, accuracy_axis
from convnext_study.results.figure import SECTIONS
from convnext_study.results.panels import reach
from convnext_study.results.report import formats
from convnext_study.results.report.gather import Study
from convnext_study.results.report.svg import Scale, join, polyline, tag
from convnext_study.results.summary import Row


@dataclass(frozen=True)
class Layout:
    """Where columns stand, in pixels. ``under``: the bar stands under its label, for phones."""

    name: str
    width: int
    row: int
    heading: int
    bars: tuple[int, int]
    top1_end: int
    gain_end: int
    macs: tuple[int, int]
    macs_end: int
    label: int  # characters
    under: bool = False


WIDE = Layout("wide", 1040, 26, 32, (268, 610), 722, 800, (828, 950), 1030, 36)
NARROW = Layout("narrow", 360, 46, 34, (0, 250), 292, 354, (262, 300), 354, 33, under=True)
_TOP, _FOOT, _INDENT = 26, 44, 16


def road_figure(study: Study, ids: dict[str, str], layout: Layout) -> Markup:
    """The figure. ``ids`` are of the panels that the rows' buttons open, by the row's name."""
    rows = study.rows
    axis = accuracy_axis(_values(study))
    scale = Scale(axis.low, axis.high, *layout.bars)
    places = list(_places(rows, layout))
    bottom = max((y for _, y, _ in places), default=0) + layout.row
    parts = [*_bands(places, layout, bottom), *_frame(study, layout, axis, scale, bottom)]
    macs = Scale(0, max((row.macs or 0 for row in rows), default=0), *layout.macs)
    points: list[tuple[float, float] | None] = []
    before = None
    for row, y, _ in places:
        if row is None:
            continue
        parts.append(_step(study, row, y, layout, (scale, macs), ids[row.name]))
        if row.adopted:
            # The line breaks where a row is not compared with the one drawn before it.
            if before is not None and row.parent != before:
                points.append(None)
            middle = y + _bar_middle(layout)
            points.append(None if row.top1 is None else (scale(row.top1), middle))
            before = row.name
    parts += _line(points)
    height = bottom + _FOOT
    return tag(
        "svg",
        tag("title", f"Accuracy and MACs of every row of {study.meta.title}"),
        *parts,
        viewBox=f"0 0 {layout.width} {height}",
        width=layout.width,
        height=height,
        class_=f"road {layout.name}",
        role="group",
        aria_label="Accuracy and MACs of every row; each row is a button that shows its details",
    )


def _values(study: Study) -> list[float]:
    values: list[float] = []
    for row in study.done:
        values += [row.top1 or 0.0, *reach(row)]
        if study.meta.compare_paper and row.paper_top1 is not None:
            values.append(row.paper_top1)
    return values


def _places(rows: list[Row], layout: Layout) -> Iterator[tuple[Row | None, float, str]]:
    """Rows and, as None, headings, each with its top and the heading's words."""
    y = float(_TOP)
    for section, members in itertools.groupby(rows, key=lambda row: row.section):
        if section:
            yield None, y, SECTIONS.get(section, section)
            y += layout.heading
        for row in members:
            yield row, y, ""
            y += layout.row


def _bands(
    places: list[tuple[Row | None, float, str]], layout: Layout, bottom: float
) -> Iterator[Markup]:
    heads = [(y, words) for row, y, words in places if row is None]
    ends = [*(y for y, _ in heads[1:]), bottom][: len(heads)]
    for place, ((y, words), end) in enumerate(zip(heads, ends, strict=True)):
        if place % 2 == 0:
            yield tag("rect", x=0, y=y, width=layout.width, height=end - y, class_="band")
        yield tag("text", words, x=8, y=y + layout.heading - 11, class_="head")


def _frame(
    study: Study, layout: Layout, axis: Axis, scale: Scale, bottom: float
) -> Iterator[Markup]:
    """Ticks, column heads, and what the axis is."""
    for value in axis.ticks:
        x = scale(value)
        yield tag("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid")
        anchor = "start" if layout.under and value == axis.ticks[0] else "middle"
        yield tag("text", f"{value:g}", x=x, y=bottom + 16, class_="tick", text_anchor=anchor)
    unit = "top-1 accuracy, %" + (" (cut axis)" if axis.cut else "")
    middle = sum(layout.bars) / 2
    yield tag("text", unit, x=middle, y=bottom + 35, class_="tick", text_anchor="middle")
    gains = any(row.gain is not None for row in study.rows)
    heads = [(layout.top1_end, "top-1 %"), (layout.gain_end, "gain" if gains else "")]
    if not layout.under:
        heads.append((layout.macs_end, "MACs"))
    for x, words in heads:
        yield tag("text", words, x=x, y=_TOP - 9, class_="tick", text_anchor="end")


def _bar_middle(layout: Layout) -> float:
    return 33.0 if layout.under else layout.row / 2


def _step(
    study: Study, row: Row, y: float, layout: Layout, scales: tuple[Scale, Scale], panel: str
) -> Markup:
    """One row, a button for its panel."""
    middle = y + _bar_middle(layout)
    text_y = y + 16 if layout.under else middle + 4.5
    parts = [tag("rect", x=1, y=y, width=layout.width - 2, height=layout.row, rx=4, class_="hit")]
    indent = 8 + (0 if row.adopted else _INDENT)
    label = formats.shorten(row.label, layout.label - (0 if row.adopted else 2))
    parts.append(tag("text", label, x=indent, y=text_y, class_="label"))
    if row.top1 is None:
        parts.append(
            tag("text", row.state, x=layout.bars[0] + 8, y=middle + 4.5, class_="tick state")
        )
    else:
        parts += _bar(study, row, middle, scales[0])
        parts += _numbers(study, row, (text_y, middle), layout, scales[1])
    return tag(
        "g",
        *parts,
        class_="step",
        role="button",
        tabindex=0,
        aria_expanded="false",
        aria_controls=panel,
        aria_label=f"{describe_row(study, row).replace(chr(10), '; ')}. Show the step",
        data_tip=describe_row(study, row),
    )


def _bar(study: Study, row: Row, middle: float, scale: Scale) -> Iterator[Markup]:
    left, right = scale(scale.low), scale(row.top1 or 0.0)
    kind = "bar" if row.adopted else "bar side"
    yield tag("rect", x=left, y=middle - 8, width=max(right - left, 0.5), height=16, class_=kind)
    low, high = (scale(value) for value in reach(row))
    if row.sd is not None:
        path = f"M{low:.1f} {middle - 4}v8m0 -4H{high:.1f}m0 -4v8"
        yield tag("path", d=path, class_="whisker")
    else:
        yield tag("rect", x=low, y=middle - 4, width=high - low, height=8, class_="noise")
    if study.meta.compare_paper and row.paper_top1 is not None:
        yield tag(
            "path", d=f"M{scale(row.paper_top1):.1f} {middle - 5}l5 5l-5 5l-5 -5z", class_="paper"
        )


def _numbers(
    study: Study, row: Row, at: tuple[float, float], layout: Layout, macs: Scale
) -> Iterator[Markup]:
    text_y, middle = at
    narrow = f"{row.top1:.2f}" if layout.under else formats.top1(row)
    yield tag("text", narrow, x=layout.top1_end, y=text_y, class_="num", text_anchor="end")
    if row.gain is not None:
        told = study.tests.told(row.name)
        mark = "" if told or told is None else "~"
        yield tag(
            "text",
            mark + formats.signed(row.gain),
            x=layout.gain_end,
            y=text_y,
            class_="num told" if told else "num faint",
            text_anchor="end",
        )
    if row.macs is not None:
        wide = max(macs(row.macs) - macs.start, 0.5)
        yield tag("rect", x=macs.start, y=middle - 5, width=wide, height=10, class_="macs")
        text = formats.count(row.macs, study.rows)
        yield tag("text", text, x=layout.macs_end, y=middle + 4.5, class_="num", text_anchor="end")


def _line(points: list[tuple[float, float] | None]) -> Iterator[Markup]:
    """The road through the adopted rows, and a dot on each."""
    run: list[tuple[float, float]] = []
    dots = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
            dots.append(tag("circle", cx=point[0], cy=point[1], r=3, class_="dot"))
            continue
        yield polyline(run if len(run) > 1 else [], class_="way")
        run = []
    yield join(dots)


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
