"""The road-map figure: bars of accuracy along the road, MACs beside them (as the paper's Fig. 2).

It serves any study of bars: rows without sections stand in one group. Panels measure y in inches
from the top, so that a row is as high in a figure of 1 row as of 17.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.results.meta import Meta, describe, describe_runs
from convnext_study.results.noise import noise_note
from convnext_study.results.report.figures import style
from convnext_study.results.report.figures.style import COLOURS, FAINT, INK, OPEN, mark
from convnext_study.results.report.formats import signed
from convnext_study.results.summary import Row
from convnext_study.results.table import PAPER_LABEL, macs_unit
from convnext_study.roadmap.paper import SECTIONS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Layout(NamedTuple):
    """Inches: a row's height, the middles of its text and bar in it, and columns from the right.

    ``file``: with title and caption. ``phone``: bars stand under their labels.
    """

    width: float
    row: float = 0.3
    text: float = 0.15
    bar: float = 0.15
    margin: float = 0.12
    label: float = 3.5
    bars: float = 3.85
    top1: float = 2.6
    gain: float = 1.86
    macs: tuple[float, float] = (1.61, 0.66)
    file: bool = False
    phone: bool = False


FILE = Layout(10.0, margin=0.3, file=True)
WIDE = Layout(11.2)
NARROW = Layout(
    4.2, 0.52, 0.15, 0.36, 0.06, 2.72, bars=1.24, top1=0.72, gain=0, macs=(1.1, 0.76), phone=True
)
_HEADING, _BAR, _LINE, _INDENT = 0.38, 0.19, 0.19, 0.22
_CAPTION = 138  # characters in a line

_ADOPTED: dict[str, Any] = {"color": COLOURS["bar"], "linewidth": 0.8}
_SIDE: dict[str, Any] = {**OPEN, "edgecolor": COLOURS["bar"]}
_NOISE: dict[str, Any] = {"color": COLOURS["deep"], "alpha": 0.28, "linewidth": 0}
_DEVIATION: dict[str, Any] = {"color": COLOURS["deep"], "linewidth": 1.3}
_ROAD: dict[str, Any] = {**_DEVIATION, "marker": "o", "markersize": 3.8}
_PAPER: dict[str, Any] = {"color": COLOURS["mark"], "marker": "D", "linestyle": "none"}
_PAPER |= {
    "zorder": 3,
    "markersize": 4.6,
    "markeredgecolor": COLOURS["paper"],
    "markeredgewidth": 0.6,
}


class Axis(NamedTuple):
    """Limits and ticks, in percent. ``cut`` says that the axis does not begin at 0."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @property
    def cut(self) -> bool:
        return self.low > 0


def accuracy_axis(values: Iterable[float]) -> Axis:
    """An axis on which the values can be told apart and even the smallest has a bar."""
    from matplotlib.ticker import MaxNLocator

    values = list(values) or [0.0, 100.0]
    most = min(max(values), 100.0)
    span = max(most - min(values), 1.0)
    rounds = MaxNLocator(7, steps=style.ROUND)
    ticks = rounds.tick_values(most - 1.3 * span, most)
    if ticks[0] < 0.3 * most or ticks[0] <= 0:  # little is gained by cutting the axis
        most = max(most, 1.0)
        ticks = rounds.tick_values(0, most)
    low = round(float(ticks[0]), 4)
    high = most + 0.04 * (most - low)
    return Axis(low, high, tuple(round(float(x), 4) for x in ticks if x <= min(high, 100) + 1e-9))


def draw(
    rows: Sequence[Row],
    folder: Path,
    meta: Meta | None = None,
    kinds: Sequence[str] = ("svg", "png"),
) -> list[Path]:
    """Write ``roadmap.svg`` and ``roadmap.png`` (or ``kinds``) and return their paths."""
    return style.save(roadmap(rows, meta or describe(rows)), folder, "roadmap", kinds)


@style.style()
def roadmap(
    rows: Sequence[Row],
    meta: Meta,
    layout: Layout = FILE,
    *,
    significant: Callable[[str], bool | None] = lambda name: None,
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Rows in the order given, one without a result as "not run".

    ``significant`` says, by a row's name, whether its gain can be told from noise (bold) or not
    (~). ``about`` has what `style.mark` says of each row's parts, for the page.
    """
    axis = accuracy_axis(_values(rows, meta))
    caption = _caption(rows, meta, axis) if layout.file else []
    handles = _handles(rows, meta)
    tops, sections, height = _places(rows, layout)
    legend = 0.24 * (len(handles) if layout.phone else bool(handles))
    bottom = 0.56 + legend + _LINE * len(caption) + (0.2 if caption else 0)
    whole = bottom + height + (1.02 if layout.file else 0.14 if layout.phone else 0.34)
    figure = style.new_figure(layout.width, whole)
    labels, start = _labels(figure, rows, layout)
    end = layout.width - layout.margin

    def panel(left: float, right: float, **limits: Any) -> Axes:
        axes = style.add_panel(figure, left, bottom, right, bottom + height)
        axes.set(ylim=(height, 0), **limits)
        return axes

    most = max((row.macs or 0 for row in rows), default=0) or 1
    back = panel(0, layout.width, xlim=(0, layout.width))
    bars = panel(start, end - layout.bars, xlim=(axis.low, axis.high))
    bars.set_xticks(axis.ticks, [f"{value:g}" for value in axis.ticks])
    macs = panel(end - layout.macs[0], end - layout.macs[1], xlim=(0, most))
    _draw_back(back, rows, sections, layout)
    bars.vlines(axis.ticks, 0, height, color=style.RULE, linewidth=0.8, zorder=0)
    bars.set_xlabel("top-1 accuracy, %" + (" (cut axis)" if axis.cut else ""))
    for row, label, top in zip(rows, labels, tops, strict=True):
        words = (about or {}).get(row.name)
        if words:
            area = back.barh(top + layout.row / 2, layout.width, layout.row, color="#ffffff")
            mark(area[0], words, "hit")
        y = top + layout.bar
        parts = _write(back, row, label, top, layout, significant(row.name), macs_unit(rows))
        parts += _draw_bar(bars, row, y, axis, meta.compare_paper)
        parts += macs.barh(y, row.macs or 0, 0.6 * _BAR, color=COLOURS["grey"])
        for part in parts:
            mark(part, words)
    road = bars.plot(*_road(rows, [top + layout.bar for top in tops]), **_ROAD, clip_on=False)
    mark(road[0], {"class": "over"} if about else None)
    if layout.file:
        _draw_frame(figure, rows, meta, caption)
    if handles:
        _draw_legend(figure, handles, layout, bottom - 0.52 - legend)
    return figure


def _places(
    rows: Sequence[Row], layout: Layout
) -> tuple[list[float], list[tuple[str | None, float, float]], float]:
    """The rows' tops, the paper's sections with their tops and ends, and the whole height."""
    y, tops, sections = 0.0, [], []
    for section, members in itertools.groupby(rows, key=lambda row: row.section):
        top = y
        y += _HEADING if section else 0
        for _ in members:
            tops.append(y)
            y += layout.row
        sections.append((section, top, y))
    return tops, sections, y


def _labels(figure: Figure, rows: Sequence[Row], layout: Layout) -> tuple[list[str], float]:
    """Labels, cut where they would leave no room for bars, and where the bars may begin."""
    labels, widest = [], 0.0
    for row in rows:
        indent = 0 if row.adopted else _INDENT
        label, width = style.fit(figure, row.label, layout.label - indent, fontsize=10.5)
        labels.append(label)
        widest = max(widest, indent + width)
    return labels, 0.2 if layout.phone else layout.margin + widest + 0.2


def reach(row: Row) -> tuple[float, float]:
    """The ends of what is drawn around a mean: deviation over seeds, else test-image noise."""
    top1 = row.top1 or 0.0
    if row.sd is not None:
        return top1 - row.sd, top1 + row.sd
    return row.interval or (top1, top1)


def _values(rows: Sequence[Row], meta: Meta) -> list[float]:
    """All that must find room on the accuracy axis."""
    done = [row for row in rows if row.top1 is not None]
    values = [value for row in done for value in (row.top1 or 0.0, *reach(row))]
    papers = [row.paper_top1 for row in done if row.paper_top1 is not None]
    return values + (papers if meta.compare_paper else [])


def _draw_back(
    back: Axes,
    rows: Sequence[Row],
    sections: Sequence[tuple[str | None, float, float]],
    layout: Layout,
) -> None:
    """A band behind every other section, the sections' names, and the heads of the columns."""
    for place, (name, top, below) in enumerate(sections):
        if place % 2 == 0 and len(sections) > 1:
            back.fill_between((0, layout.width), top, below, color=COLOURS["band"], linewidth=0)
        if name:
            look: dict[str, Any] = {"fontweight": "bold", "color": COLOURS["deep"]}
            text = style.clean(SECTIONS.get(name, name))
            back.text(layout.margin, top + 0.19, text, fontsize=10.5, va="center", **look)
    if not layout.phone:
        gain = "gain" if any(row.gain is not None for row in rows) else ""
        macs = f"MACs, {macs_unit(rows)[1]}"
        for column, head in ((layout.top1, "top-1 %"), (layout.gain, gain), (0, macs)):
            x = layout.width - layout.margin - column
            back.text(x, -0.15, head, color=FAINT, ha="right")


def _write(
    back: Axes,
    row: Row,
    label: str,
    top: float,
    layout: Layout,
    significant: bool | None,
    unit: tuple[float, str],
) -> list[Artist]:
    """Label to the left of the bars, numbers to their right."""
    end, y = layout.width - layout.margin, top + layout.text
    font: dict[str, Any] = {"va": "center", "fontsize": 10.5}
    right: dict[str, Any] = {**font, "ha": "right"}
    indent = 0 if row.adopted else _INDENT
    parts = [back.text(layout.margin + indent, y, label, **font)]
    if row.top1 is not None:
        spread = "" if row.sd is None or layout.phone else f" ± {row.sd:.2f}"
        parts.append(back.text(end - layout.top1, y, f"{row.top1:.2f}{spread}", **right))
    if row.gain is not None:
        gain = ("~" if significant is False else "") + signed(row.gain)
        look = {"color": INK, "fontweight": "bold"} if significant else {"color": FAINT}
        parts.append(back.text(end - layout.gain, y, gain, **{**right, **look}))
    if row.macs is not None:
        macs = f"{row.macs / unit[0]:.2f}" + (f" {unit[1]}" if layout.phone else "")
        parts.append(back.text(end, top + layout.bar, macs, **right))
    return [*parts]


def _draw_bar(panel: Axes, row: Row, y: float, axis: Axis, compare_paper: bool) -> list[Artist]:
    """Accuracy and what it may be off by, and the paper's; or why there is none."""
    if row.top1 is None:
        x = axis.low + 0.01 * (axis.high - axis.low)
        return [panel.text(x, y, row.state, va="center", color=FAINT, style="italic")]
    look = _ADOPTED if row.adopted else _SIDE
    parts: list[Artist] = [*panel.barh(y, row.top1 - axis.low, _BAR, axis.low, **look)]
    if row.sd is not None:
        error = panel.errorbar(row.top1, y, xerr=row.sd, **_DEVIATION, capsize=3, fmt="none")
        parts += [*error[1], *error[2]]
    else:
        low, high = reach(row)
        parts += panel.barh(y, high - low, _BAR * 0.5, low, **_NOISE)
    if compare_paper and row.paper_top1 is not None:
        parts += panel.plot(row.paper_top1, y, **_PAPER)
    return parts


def _road(rows: Sequence[Row], heights: Sequence[float]) -> tuple[list[float], list[float]]:
    """The ends of adopted bars, with a gap wherever one is not compared with the one before it.

    matplotlib breaks a line at what is not a number, as a row without a result is.
    """
    x, y, before = [], [], None
    for row, height in zip(rows, heights, strict=True):
        if row.adopted:
            if before is not None and row.parent != before:
                x.append(math.nan)
                y.append(height)
            x.append(math.nan if row.top1 is None else row.top1)
            y.append(height)
            before = row.name
    return x, y


def _handles(rows: Sequence[Row], meta: Meta) -> list[Artist]:
    """A handle for each kind of mark that the figure has."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    done = [row for row in rows if row.top1 is not None]
    adopted = "adopted step" if any(row.section for row in rows) else "network"
    stroke: dict[str, Any] = {**_DEVIATION, "marker": "|", "markersize": 7}
    paper = meta.compare_paper and any(row.paper_top1 is not None for row in rows)
    kinds: list[tuple[bool, Artist]] = [
        (any(row.adopted for row in done), Patch(**_ADOPTED, label=adopted)),
        (any(not row.adopted for row in done), Patch(**_SIDE, label="tried, not adopted")),
        (
            any(row.sd is not None for row in done),
            Line2D([], [], **stroke, label="± deviation over seeds"),
        ),
        (
            any(row.sd is None for row in done),
            Patch(**_NOISE, label="95 % test-image noise (Wilson)"),
        ),
        (paper, Line2D([], [], **_PAPER, label=PAPER_LABEL)),
    ]
    return [handle for shown, handle in kinds if shown]


def _draw_legend(figure: Figure, handles: list[Artist], layout: Layout, y: float) -> None:
    width, height = figure.get_size_inches()
    at, columns = (layout.margin / width, y / height), 1 if layout.phone else len(handles)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=at, ncols=columns, borderaxespad=0
    )


def _draw_frame(figure: Figure, rows: Sequence[Row], meta: Meta, caption: Sequence[str]) -> None:
    """Title above, caption below."""
    width, height = figure.get_size_inches()
    x, faint = FILE.margin / width, {"color": FAINT}
    title = style.clean(meta.title)
    figure.text(x, 1 - 0.36 / height, title, fontsize=15, fontweight="bold")
    under = textwrap.shorten(
        style.clean(" · ".join(describe_runs(rows, meta))), _CAPTION, placeholder=" …"
    )
    figure.text(x, 1 - 0.63 / height, under, fontsize=10.5, **faint)
    for place, line in enumerate(reversed(caption)):
        figure.text(x, (0.16 + _LINE * place) / height, line, fontsize=9, **faint)


def _caption(rows: Sequence[Row], meta: Meta, axis: Axis) -> list[str]:
    """Whose numbers these are, and what they are worth."""
    recipes = ", ".join(dict.fromkeys(row.recipe for row in rows if row.recipe))
    whose = f"Accuracies were measured in this study's runs ({recipes}); they are not the paper's."
    if meta.compare_paper:
        whose += " Diamonds are, on ImageNet-1K."
    cut = f"The accuracy axis is cut: it begins at {axis.low:g} %, not at 0." if axis.cut else ""
    sentences = (whose, noise_note(rows), cut)
    return [line for text in sentences for line in textwrap.wrap(style.clean(text), _CAPTION)]
