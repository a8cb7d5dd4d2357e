"""The road-map figure: bars of accuracy along the road, MACs beside them (as the paper's Fig. 2).

It serves any study of bars: rows without sections stand in one group. Panels measure y in inches
from the top, so that a row is as high in a figure of 1 row as of 17.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.results.meta import Meta, describe
from convnext_study.results.noise import noise_note
from convnext_study.results.report.figures import style
from convnext_study.results.report.figures.inline import OVER
from convnext_study.results.report.figures.style import COLOURS, FAINT, INK, OPEN, mark
from convnext_study.results.report.formats import signed
from convnext_study.results.report.tables.formatting import short_data
from convnext_study.results.summary import Row
from convnext_study.results.table import PAPER_LABEL, macs_unit
from convnext_study.roadmap.paper import SECTIONS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Layout:
    """Where things stand, in inches. ``under``: bars stand under their labels, for phones."""

    width: float
    row: float = 0.3
    heading: float = 0.38
    margin: float = 0.3
    frame: bool = False  # title and caption
    under: bool = False


FILE = Layout(10.0, frame=True)
WIDE = Layout(11.2, margin=0.12)
NARROW = Layout(4.2, row=0.52, heading=0.42, margin=0.06, under=True)

_BAR, _LINE, _INDENT, _LABEL = 0.19, 0.19, 0.22, 3.5
_CAPTION = 138  # characters in a line
_BAND: dict[str, Any] = {"color": COLOURS["band"], "linewidth": 0}
_ADOPTED: dict[str, Any] = {"color": COLOURS["bar"], "linewidth": 0.8}
_SIDE: dict[str, Any] = {**OPEN, "edgecolor": COLOURS["bar"]}
_NOISE: dict[str, Any] = {"color": COLOURS["deep"], "alpha": 0.28, "linewidth": 0}
_DEVIATION: dict[str, Any] = {"color": COLOURS["deep"], "linewidth": 1.3}
_ROAD: dict[str, Any] = {
    "color": COLOURS["deep"],
    "linewidth": 1.2,
    "marker": "o",
    "markersize": 3.8,
}
_PAPER: dict[str, Any] = {
    "color": COLOURS["mark"],
    "marker": "D",
    "markersize": 4.6,
    "markeredgecolor": COLOURS["paper"],
    "markeredgewidth": 0.6,
    "linestyle": "none",
}


class _Line(NamedTuple):
    """A row, the heights of its text and of its bar, and what it is marked as."""

    row: Row
    text: float
    bar: float
    key: str
    significant: bool | None


class _Columns(NamedTuple):
    label: float
    bars: tuple[float, float]
    top1: float
    gain: float
    macs: tuple[float, float]
    end: float


@dataclass(frozen=True)
class Axis:
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
    rounds = MaxNLocator(7, steps=[1, 2, 5, 10])
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
    name: str = "roadmap",
) -> list[Path]:
    """Write ``roadmap.svg`` and ``roadmap.png`` (or ``kinds``) and return their paths."""
    return style.save(roadmap(rows, meta or describe(rows)), folder, name, kinds)


@style.style()
def roadmap(
    rows: Sequence[Row],
    meta: Meta,
    layout: Layout = FILE,
    *,
    significant: Mapping[str, bool | None] | None = None,
    keys: Mapping[str, str] | None = None,
) -> Figure:
    """Rows in the order given, one without a result as "not run".

    ``significant``, by the row's name, marks gains that can be told from noise (bold) or cannot
    (~). ``keys`` are what `style.mark` names each row's parts, for the page.
    """
    lines, headings, bands, height = _places(rows, layout, significant or {}, keys or {})
    axis = accuracy_axis(_values(rows, meta))
    caption = _caption(rows, meta, axis) if layout.frame else []
    handles = _handles(rows, meta)
    legend = 0.24 * (len(handles) if layout.under else bool(handles))
    bottom = 0.56 + legend + _LINE * len(caption) + (0.2 if caption else 0)
    top = 1.02 if layout.frame else 0.14 if layout.under else 0.34
    figure = style.new_figure(layout.width, bottom + height + top)
    names, columns = _columns(figure, lines, headings, layout)

    def panel(left: float, right: float) -> Axes:
        axes = style.add_panel(figure, left, bottom, right, bottom + height)
        axes.set(ylim=(height, 0), yticks=[], xticks=[])
        axes.spines[:].set_visible(False)
        return axes

    back = panel(0, layout.width)
    back.set(xlim=(0, layout.width))
    for above, below in bands[::2] if len(bands) > 1 else ():
        back.fill_between((0, layout.width), above, below, **_BAND)
    for y, name in headings:
        bold: dict[str, Any] = {"fontweight": "bold", "color": COLOURS["deep"], "va": "center"}
        back.text(columns.label, y, style.clean(name), fontsize=10.5, **bold)
    for line, name in zip(lines, names, strict=True):
        _write(back, line, name, columns, layout, macs_unit(rows))
    if not layout.under:
        _write_heads(back, rows, columns)
    bars = panel(*columns.bars)
    _draw_bars(bars, lines, axis, height, meta.compare_paper)
    _draw_macs(panel(*columns.macs), lines)
    _draw_frame(figure, rows, meta, caption) if layout.frame else None
    if handles:
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(
                columns.label / layout.width,
                (bottom - 0.52 - legend) / (bottom + height + top),
            ),
            ncols=1 if layout.under else len(handles),
            borderpad=0.2,
            borderaxespad=0,
        )
    return figure


def _places(
    rows: Sequence[Row],
    layout: Layout,
    significant: Mapping[str, bool | None],
    keys: Mapping[str, str],
) -> tuple[list[_Line], list[tuple[float, str]], list[tuple[float, float]], float]:
    """Rows under each other, headings and bands of the paper's sections, and the whole height."""
    y, lines, headings, bands = 0.0, [], [], []
    for section, members in itertools.groupby(rows, key=lambda row: row.section):
        top = y
        if section:
            headings.append((y + layout.heading / 2, SECTIONS.get(section, section)))
            y += layout.heading
        for row in members:
            text = bar = y + layout.row / 2
            if layout.under:
                text, bar = y + 0.15, y + 0.36
            key = keys.get(row.name, "")
            lines.append(_Line(row, text, bar, key, significant.get(row.name)))
            y += layout.row
        bands.append((top, y))
    return lines, headings, bands, y


def _columns(
    figure: Figure,
    lines: Sequence[_Line],
    headings: Sequence[tuple[float, str]],
    layout: Layout,
) -> tuple[list[str], _Columns]:
    """The rows' labels, cut where they would leave no room for bars, and where columns stand."""
    rooms = [2.72 if layout.under else _LABEL]
    names, widest = [], 0.0
    for line in lines:
        indent = 0 if line.row.adopted else _INDENT
        name, width = style.fit(figure, line.row.label, rooms[0] - indent, fontsize=10.5)
        names.append(name)
        widest = max(widest, width + indent)
    if layout.under:
        return names, _Columns(0.08, (0.2, 2.9), 3.42, 4.14, (3.04, 3.38), 4.14)
    # A long heading may run on over the bars' side: there are no bars on its line.
    for _, text in headings:
        width = style.fit(figure, text, math.inf, fontsize=10.5, fontweight="bold")[1]
        widest = max(widest, min(width, _LABEL))
    end = layout.width - layout.margin
    macs = (end - 1.61, end - 0.66)
    gain = macs[0] - 0.25
    spread = 0.5 if any(line.row.sd is not None for line in lines) else 0.0
    bars = (layout.margin + widest + 0.2, gain - 0.74 - 0.75 - spread)
    return names, _Columns(layout.margin, bars, gain - 0.74, gain, macs, end)


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


def _write(
    back: Axes,
    line: _Line,
    name: str,
    columns: _Columns,
    layout: Layout,
    unit: tuple[float, str],
) -> None:
    """Label to the left of the bars, numbers to their right; all of it can be pointed at."""
    from matplotlib.patches import Rectangle

    row = line.row

    def put(x: float, text: str, y: float = line.text, **font: Any) -> None:
        mark(back.text(x, y, text, va="center", fontsize=10.5, **font), line.key)

    if line.key:
        top = line.text - (0.15 if layout.under else layout.row / 2)
        area = Rectangle((0, top), layout.width, layout.row, color=COLOURS["paper"], linewidth=0)
        mark(back.add_patch(area), line.key, "hit")
    put(columns.label + (0 if row.adopted else _INDENT), name)
    if row.top1 is None:
        return
    spread = "" if row.sd is None or layout.under else f" ± {row.sd:.2f}"
    put(columns.top1, f"{row.top1:.2f}{spread}", ha="right")
    if row.gain is not None:
        unsure = "~" if line.significant is False else ""
        colour, weight = (INK, "bold") if line.significant else (FAINT, "normal")
        gain = unsure + signed(row.gain)
        put(columns.gain, gain, ha="right", color=colour, fontweight=weight)
    if row.macs is not None:
        letter = f" {unit[1]}" if layout.under else ""
        put(columns.end, f"{row.macs / unit[0]:.2f}{letter}", line.bar, ha="right")


def _write_heads(back: Axes, rows: Sequence[Row], columns: _Columns) -> None:
    gains = any(row.gain is not None for row in rows)
    for x, head in (
        (columns.top1, "top-1 %"),
        (columns.gain, "gain" if gains else ""),
        (columns.end, f"MACs, {macs_unit(rows)[1]}"),
    ):
        back.text(x, -0.15, head, color=FAINT, ha="right")


def _draw_bars(
    panel: Axes, lines: Sequence[_Line], axis: Axis, height: float, compare_paper: bool
) -> None:
    """Accuracies, what they may be off by, and the road that joins the adopted ones."""
    panel.set(xlim=(axis.low, axis.high), xticks=axis.ticks)
    panel.set_xlabel("top-1 accuracy, %" + (" (cut axis)" if axis.cut else ""))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.vlines(axis.ticks, 0, height, color=COLOURS["rule"], linewidth=0.8, zorder=0)
    for line in lines:
        row, y = line.row, line.bar
        parts: list[Artist] = []
        if row.top1 is None:
            x = axis.low + 0.01 * (axis.high - axis.low)
            parts.append(panel.text(x, y, row.state, va="center", color=FAINT, style="italic"))
        else:
            look = _ADOPTED if row.adopted else _SIDE
            parts += panel.barh(y, row.top1 - axis.low, _BAR, axis.low, zorder=2, **look)
            low, high = reach(row)
            if row.sd is not None:
                error = panel.errorbar(
                    row.top1, y, xerr=row.sd, **_DEVIATION, capsize=3, fmt="none", zorder=5
                )
                parts += [*error[1], *error[2]]
            else:
                parts += panel.barh(y, high - low, _BAR * 0.5, low, **_NOISE, zorder=4)
            if axis.cut:
                parts += _draw_cut(panel, y, axis)
            if compare_paper and row.paper_top1 is not None:
                parts += panel.plot(row.paper_top1, y, **_PAPER, zorder=7)
        for part in parts:
            mark(part, line.key)
    (road,) = panel.plot(*_road(lines), **_ROAD, zorder=6, clip_on=False)
    road.set_gid(OVER)


def _road(lines: Sequence[_Line]) -> tuple[list[float], list[float]]:
    """The ends of adopted bars, with a gap wherever one is not compared with the one before it.

    matplotlib breaks a line at what is not a number, as a row without a result is.
    """
    x, y, before = [], [], None
    for line in lines:
        if not line.row.adopted:
            continue
        if before is not None and line.row.parent != before:
            x.append(math.nan)
            y.append(line.bar)
        x.append(math.nan if line.row.top1 is None else line.row.top1)
        y.append(line.bar)
        before = line.row.name
    return x, y


def _draw_cut(panel: Axes, y: float, axis: Axis) -> list[Any]:
    """Two slanted strokes through the foot of a bar: the axis does not begin at 0."""
    wide, made = axis.high - axis.low, []
    for offset in (0.014, 0.026):
        x = axis.low + offset * wide
        ends = (x - 0.004 * wide, x + 0.004 * wide), (y + _BAR / 2, y - _BAR / 2)
        made += panel.plot(*ends, color=COLOURS["paper"], linewidth=1.8, zorder=3)
    return made


def _draw_macs(panel: Axes, lines: Sequence[_Line]) -> None:
    """MACs as bars from 0."""
    panel.set(xlim=(0, max((line.row.macs or 0 for line in lines), default=0) or 1))
    for line in lines:
        if line.row.macs is not None:
            for bar in panel.barh(
                line.bar, line.row.macs, 0.6 * _BAR, color=COLOURS["grey"], linewidth=0
            ):
                mark(bar, line.key)


def _handles(rows: Sequence[Row], meta: Meta) -> list[Artist]:
    """A handle for each kind of mark that the figure has."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    done = [row for row in rows if row.top1 is not None]
    handles: list[Artist] = []
    if any(row.adopted for row in done):
        handles.append(Patch(**_ADOPTED, label="adopted step" if rows[0].section else "network"))
    if any(not row.adopted for row in done):
        handles.append(Patch(**_SIDE, label="tried, not adopted"))
    if any(row.sd is not None for row in done):
        stroke: dict[str, Any] = {**_DEVIATION, "marker": "|", "markersize": 7}
        handles.append(Line2D([], [], **stroke, label="± deviation over seeds"))
    if any(row.sd is None for row in done):
        handles.append(Patch(**_NOISE, label="95 % test-image noise (Wilson)"))
    if meta.compare_paper and any(row.paper_top1 is not None for row in rows):
        handles.append(Line2D([], [], **_PAPER, label=PAPER_LABEL))
    return handles


def _draw_frame(figure: Figure, rows: Sequence[Row], meta: Meta, caption: Sequence[str]) -> None:
    """Title above, caption below."""
    width, height = figure.get_size_inches()
    x = FILE.margin / width
    title = style.clean(meta.title)
    figure.text(x, 1 - 0.3 / height, title, fontsize=15, fontweight="bold", va="center")
    faint: dict[str, Any] = {"color": FAINT, "va": "center"}
    figure.text(x, 1 - 0.58 / height, _subtitle(rows, meta), fontsize=10.5, **faint)
    for place, line in enumerate(reversed(caption)):
        figure.text(x, (0.2 + _LINE * place) / height, line, fontsize=9, **faint)


def _subtitle(rows: Sequence[Row], meta: Meta) -> str:
    """Regime, data and seeds in one line."""
    done = [row for row in rows if row.top1 is not None]
    parts = [f"regime {meta.regime}"] if meta.regime else []
    parts.append(f"data {short_data(meta.data)}")
    if done:
        images = sorted({row.val_images or 0 for row in done})
        counts = sorted({len(row.seeds) for row in done})
        parts.append(f"{_range(images)} test images")
        parts.append(f"{_range(counts)} seed{'' if counts == [1] else 's'}")
    return textwrap.shorten(style.clean(" · ".join(parts)), _CAPTION, placeholder=" …")


def _range(numbers: Sequence[int]) -> str:
    """``3``, or ``1 to 3``, of sorted numbers."""
    return " to ".join(f"{number:,}" for number in dict.fromkeys((numbers[0], numbers[-1])))


def _caption(rows: Sequence[Row], meta: Meta, axis: Axis) -> list[str]:
    """Whose numbers these are, and what they are worth."""
    recipes = ", ".join(dict.fromkeys(row.recipe for row in rows if row.recipe))
    whose = f"Accuracies were measured in this study's runs ({recipes}); they are not the paper's."
    if meta.compare_paper:
        whose += " Diamonds are, on ImageNet-1K."
    sentences = [whose, noise_note(rows)]
    if axis.cut:
        sentences.append(f"The accuracy axis is cut: it begins at {axis.low:g} %, not at 0.")
    return [line for text in sentences for line in textwrap.wrap(style.clean(text), _CAPTION)]
