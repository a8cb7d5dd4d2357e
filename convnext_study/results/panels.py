"""The parts of the bar figure: sections, bars, numbers beside them, and the panel of MACs.

Panels measure y in inches from the top, so that a row is as high in a figure of 1 row as of 17.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.results.axis import Axis
from convnext_study.results.summary import Row
from convnext_study.results.table import PAPER_LABEL, macs_unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion stay apart for every kind of colour blindness, and in grey.
BLUE, DARK, PAPER = "#8DBBDD", "#0B3C5D", "#D55E00"
INK, FAINT, GREY, GRID, BAND = "#1F2933", "#5F6B76", "#BCC4CC", "#DDE2E7", "#F4F6F8"
ROW, HEADING = 0.3, 0.38  # inches
_BAR = 0.64 * ROW
_INDENT = 0.22  # of a side branch
_LABEL = 3.5  # inches, at most


@dataclass(frozen=True)
class Places:
    """Where rows, headings and the bands behind sections stand, in inches from the top."""

    rows: Sequence[float]
    headings: Sequence[tuple[float, str]]
    bands: Sequence[tuple[float, float]]
    height: float


@dataclass(frozen=True)
class Columns:
    """Where text and panels stand, in inches from the figure's left edge."""

    label: float
    bars: float
    top1_end: float
    gain_end: float
    macs: float
    macs_end: float
    macs_text_end: float


def reach(row: Row) -> tuple[float, float]:
    """The ends of what is drawn around a mean: deviation over seeds, else test-image noise."""
    top1 = row.top1 or 0.0
    if row.sd is not None:
        return top1 - row.sd, top1 + row.sd
    return row.interval or (top1, top1)


def labels(figure: Figure, rows: Sequence[Row], places: Places) -> tuple[list[str], float]:
    """The rows' labels, cut where they would leave no room for bars, and the inches they take."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.text import Text

    renderer = RendererAgg(1, 1, figure.dpi)  # type: ignore[no-untyped-call]

    def width(name: str, weight: str = "normal") -> float:
        text = Text(0, 0, name, figure=figure, fontweight=weight)
        return text.get_window_extent(renderer).width / figure.dpi

    names, widest = [], 0.0
    for row in rows:
        name = full = row.label
        room = _LABEL - (0 if row.adopted else _INDENT)
        while width(name) > room:
            full = full[:-1].rstrip()
            name = full + "…"
        names.append(name)
        widest = max(widest, width(name) + _LABEL - room)
    # A long heading may run on over the bars' side: there are no bars on its line.
    widths = [widest, *(min(width(name, "bold"), _LABEL) for _, name in places.headings)]
    return names, max(widths) + 0.2


def draw_sections(panel: Axes, places: Places, columns: Columns) -> None:
    """A band behind every other section, and the sections' names, on a panel in inches."""
    left, right = columns.label - 0.1, columns.macs_text_end + 0.1
    for top, bottom in places.bands[::2] if len(places.bands) > 1 else ():
        panel.fill_between((left, right), top, bottom, color=BAND, linewidth=0)
    for y, name in places.headings:
        panel.text(columns.label, y, name, fontweight="bold", color=DARK, va="center")


def draw_bars(
    panel: Axes, rows: Sequence[Row], places: Places, axis: Axis, compare_paper: bool
) -> None:
    """Accuracies, what they may be off by, and the road that joins the adopted ones."""
    panel.set(xlim=(axis.low, axis.high), xticks=axis.ticks)
    panel.tick_params(axis="x", length=0, labelcolor=FAINT, labelsize=9.5)
    panel.set_xlabel("top-1 accuracy, %", color=FAINT, fontsize=9.5)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.vlines(axis.ticks, 0, places.height, color=GRID, linewidth=0.8, zorder=0)
    for row, y in zip(rows, places.rows, strict=True):
        if row.top1 is None:
            x = axis.low + 0.01 * (axis.high - axis.low)
            panel.text(x, y, row.state, va="center", color=FAINT, style="italic")
            continue
        panel.barh(y, row.top1 - axis.low, _BAR, axis.low, zorder=2, **_bar_style(row))
        low, high = reach(row)
        if row.sd is not None:
            panel.errorbar(row.top1, y, xerr=row.sd, **_DEVIATION, zorder=5)
        else:
            panel.barh(y, high - low, _BAR * 0.5, low, **_NOISE, zorder=4)
        if axis.cut:
            _draw_cut(panel, y, axis)
        if compare_paper and row.paper_top1 is not None:
            panel.plot(row.paper_top1, y, **_PAPER_MARK, zorder=7)
    panel.plot(*_road(rows, places), **_ROAD, zorder=6, clip_on=False)


def _road(rows: Sequence[Row], places: Places) -> tuple[list[float], list[float]]:
    """The ends of adopted bars, with a gap wherever one is not compared with the one before it.

    matplotlib breaks a line at what is not a number, as a row without a result is.
    """
    x, y, before = [], [], None
    for row, place in zip(rows, places.rows, strict=True):
        if not row.adopted:
            continue
        if before is not None and row.parent != before:
            x.append(math.nan)
            y.append(place)
        x.append(math.nan if row.top1 is None else row.top1)
        y.append(place)
        before = row.name
    return x, y


def _bar_style(row: Row) -> dict[str, Any]:
    if row.adopted:
        return {"facecolor": BLUE, "edgecolor": BLUE, "linewidth": 0.8}
    return {"facecolor": "white", "edgecolor": BLUE, "linewidth": 0.8, "hatch": "/////"}


_ROAD: dict[str, Any] = {"color": DARK, "linewidth": 1.2, "marker": "o", "markersize": 3.8}
_NOISE: dict[str, Any] = {"color": DARK, "alpha": 0.25, "linewidth": 0}
_DEVIATION: dict[str, Any] = {"color": DARK, "linewidth": 1.3, "capsize": 3, "fmt": "none"}
_PAPER_MARK: dict[str, Any] = {
    "color": PAPER,
    "marker": "D",
    "markersize": 4.6,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "linestyle": "none",
}


def _draw_cut(panel: Axes, y: float, axis: Axis) -> None:
    """Two slanted strokes through the foot of a bar: the axis does not begin at 0."""
    wide = axis.high - axis.low
    for offset in (0.014, 0.026):
        x = axis.low + offset * wide
        ends = (x - 0.004 * wide, x + 0.004 * wide), (y + _BAR / 2, y - _BAR / 2)
        panel.plot(*ends, color="white", linewidth=1.8, solid_capstyle="butt", zorder=3)


def draw_text(
    panel: Axes, rows: Sequence[Row], names: Sequence[str], places: Places, columns: Columns
) -> None:
    """Labels to the left of the bars, numbers to their right, on a panel in inches."""
    unit, letter = macs_unit(rows)
    right: dict[str, Any] = {"va": "center", "ha": "right"}
    for x, head in (
        (columns.top1_end, "top-1 %"),
        (columns.gain_end, "gain" if any(row.gain is not None for row in rows) else ""),
        (columns.macs_text_end, f"MACs, {letter}"),
    ):
        panel.text(x, -0.15, head, color=FAINT, fontsize=9.5, ha="right")
    for row, name, y in zip(rows, names, places.rows, strict=True):
        panel.text(columns.label + (0 if row.adopted else _INDENT), y, name, va="center")
        if row.top1 is None:
            continue
        spread = "" if row.sd is None else f" ± {row.sd:.2f}"
        panel.text(columns.top1_end, y, f"{row.top1:.2f}{spread}", **right)
        if row.gain is not None:
            gain = f"{row.gain:+.2f}".replace("-", "−")
            panel.text(columns.gain_end, y, gain, color=FAINT, **right)
        if row.macs is not None:
            panel.text(columns.macs_text_end, y, f"{row.macs / unit:.2f}", **right)


def draw_macs(panel: Axes, rows: Sequence[Row], places: Places) -> None:
    """MACs as bars from 0."""
    most = max((row.macs or 0 for row in rows), default=0)
    panel.set(xlim=(0, most or 1), xticks=[])
    for row, y in zip(rows, places.rows, strict=True):
        if row.macs is not None:
            panel.barh(y, row.macs, _BAR * 0.6, color=GREY, linewidth=0)


def legend_handles(rows: Sequence[Row], compare_paper: bool) -> list[Artist]:
    """A handle for each kind of mark that the figure has."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    done = [row for row in rows if row.top1 is not None]
    handles: list[Artist] = []
    if any(not row.adopted for row in done):
        branch = next(row for row in done if not row.adopted)
        handles.append(Patch(**_bar_style(branch), label="tried, not adopted"))
    if any(row.sd is not None for row in done):
        style: dict[str, Any] = {"color": DARK, "linewidth": 1.3, "marker": "|", "markersize": 7}
        handles.append(Line2D([], [], **style, label="± deviation over seeds"))
    if any(row.sd is None for row in done):
        handles.append(Patch(**_NOISE, label="95 % test-image noise (Wilson)"))
    if compare_paper and any(row.paper_top1 is not None for row in rows):
        handles.append(Line2D([], [], **_PAPER_MARK, label=PAPER_LABEL))
    return handles
