"""A row of the road-map figure: its label and numbers, its bar, and the bar's uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.report.figures.style import COLOURS, FAINT, INK, OPEN, ROUND
from convnext_study.report.tables.formatting import marked, mean_std
from convnext_study.report.tables.results import PAPER_LABEL
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow, StudyTitle

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


class Layout(NamedTuple):
    """Inches: a row's height, the centres of its text and bar, and columns from the right.

    ``file``: with title and caption. ``phone``: bars are below their labels.
    """

    width: float
    row: float = 0.3
    text: float = 0.15
    bar: float = 0.15
    margin: float = 0.12
    label: float = 3.5
    bars: float = 3.85
    score: float = 2.6
    gain: float = 1.86
    macs: tuple[float, float] = (1.61, 0.66)
    file: bool = False
    phone: bool = False


FILE = Layout(10.0, margin=0.3, file=True)
WIDE = Layout(11.2)
NARROW = Layout(
    4.2, 0.52, 0.15, 0.36, 0.06, 2.72, bars=1.24, score=0.72, gain=0, macs=(1.1, 0.76), phone=True
)
BAR, INDENT = 0.19, 0.22

_ADOPTED: dict[str, Any] = {"color": COLOURS["bar"], "linewidth": 0.8}
_SIDE: dict[str, Any] = {**OPEN, "edgecolor": COLOURS["bar"]}
_NOISE: dict[str, Any] = {"color": COLOURS["deep"], "alpha": 0.28, "linewidth": 0}
_DEVIATION: dict[str, Any] = {"color": COLOURS["deep"], "linewidth": 1.3}
ROAD: dict[str, Any] = {**_DEVIATION, "marker": "o", "markersize": 3.8}
_PAPER: dict[str, Any] = {"color": COLOURS["mark"], "marker": "D", "linestyle": "none"}
_PAPER |= {
    "zorder": 3,
    "markersize": 4.6,
    "markeredgecolor": COLOURS["paper"],
    "markeredgewidth": 0.6,
}


class Axis(NamedTuple):
    """Limits and ticks, in the metric's unit."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @property
    def cut(self) -> bool:
        """Whether the axis does not start at 0."""
        return self.low != 0


def value_axis(values: Iterable[float], metric: MetricSpec) -> Axis:
    """An axis on which the values are distinguishable and even the smallest has a bar."""
    from matplotlib.ticker import MaxNLocator

    ceiling = metric.bounds[1]
    # Closer values are treated as equal.
    min_span = 1.0 if math.isfinite(ceiling) else 10.0**-metric.decimals
    values = list(values) or [0.0, ceiling if math.isfinite(ceiling) else 1.0]
    top = min(max(values), ceiling)
    span = max(top - min(values), min_span)
    locator = MaxNLocator(7, steps=ROUND)
    ticks = locator.tick_values(top - 1.3 * span, top)
    if min(values) >= 0 and (ticks[0] < 0.3 * top or ticks[0] <= 0):  # cutting gains little
        top = max(top, min_span)
        ticks = locator.tick_values(0, top)
    low = round(float(ticks[0]), 9)
    high = top + 0.04 * (top - low)
    last = min(high, ceiling) + 1e-9 * abs(high)
    return Axis(low, high, tuple(round(float(x), 9) for x in ticks if x <= last))


def error_bar(row: ResultRow) -> tuple[float, float]:
    """Ends of the error bar of a mean: standard deviation over seeds, else test-image noise."""
    value = row.value or 0.0
    if row.std is not None:
        return value - row.std, value + row.std
    return row.interval or (value, value)


def write_row(
    back: Axes,
    row: ResultRow,
    label: str,
    top: float,
    layout: Layout,
    unit: tuple[float, str],
) -> list[Artist]:
    """Label to the left of the bars, numbers to their right."""
    end, y = layout.width - layout.margin, top + layout.text
    font: dict[str, Any] = {"va": "center", "fontsize": 10.5}
    right_font: dict[str, Any] = {**font, "ha": "right"}
    indent = 0 if row.adopted else INDENT
    parts = [back.text(layout.margin + indent, y, label, **font)]
    if row.value is not None:
        written = mean_std(row.value, None if layout.phone else row.std, row.metric.decimals)
        parts.append(back.text(end - layout.score, y, written, **right_font))
    if row.gain is not None:
        gain = marked(row.gain, row.significant, row.metric.decimals)
        gain_font = {"color": INK, "fontweight": "bold"} if row.significant else {"color": FAINT}
        parts.append(back.text(end - layout.gain, y, gain, **{**right_font, **gain_font}))
    if row.macs is not None:
        macs = f"{row.macs / unit[0]:.2f}" + (f" {unit[1]}" if layout.phone else "")
        parts.append(back.text(end, top + layout.bar, macs, **right_font))
    return [*parts]


def draw_bar(
    panel: Axes, row: ResultRow, y: float, axis: Axis, compare_paper: bool
) -> list[Artist]:
    """The value with its uncertainty, and the paper's; or why there is none."""
    if row.value is None:
        x = axis.low + 0.01 * (axis.high - axis.low)
        return [panel.text(x, y, row.state, va="center", color=FAINT, style="italic")]
    fill = _ADOPTED if row.adopted else _SIDE
    parts: list[Artist] = [*panel.barh(y, row.value - axis.low, BAR, axis.low, **fill)]
    if row.std is not None:
        error = panel.errorbar(row.value, y, xerr=row.std, **_DEVIATION, capsize=3, fmt="none")
        parts += [*error[1], *error[2]]
    else:
        low, high = error_bar(row)
        parts += panel.barh(y, high - low, BAR * 0.5, low, **_NOISE)
    if compare_paper and row.paper_value is not None:
        parts += panel.plot(row.paper_value, y, **_PAPER)
    return parts


def road_line(
    rows: Sequence[ResultRow], heights: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The ends of adopted bars, with a gap wherever one is not compared with the one before it.

    matplotlib breaks a line at NaN, which also stands for a row without a result.
    """
    x, y, previous = [], [], None
    for row, height in zip(rows, heights, strict=True):
        if row.adopted:
            if previous is not None and row.parent != previous:
                x.append(math.nan)
                y.append(height)
            x.append(math.nan if row.value is None else row.value)
            y.append(height)
            previous = row.name
    return x, y


def legend_handles(rows: Sequence[ResultRow], meta: StudyTitle) -> list[Artist]:
    """A handle per kind of mark in the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    done = [row for row in rows if row.value is not None]
    bands = [row for row in done if row.std is None and row.interval is not None]
    methods = dict.fromkeys(row.interval_method for row in bands)
    adopted = "adopted step" if any(row.section for row in rows) else "network"
    stroke: dict[str, Any] = {**_DEVIATION, "marker": "|", "markersize": 7}
    paper = meta.compare_paper and any(row.paper_value is not None for row in rows)
    kinds: list[tuple[bool, Artist]] = [
        (any(row.adopted for row in done), Patch(**_ADOPTED, label=adopted)),
        (any(not row.adopted for row in done), Patch(**_SIDE, label="tried, not adopted")),
        (
            any(row.std is not None for row in done),
            Line2D([], [], **stroke, label="± standard deviation over seeds"),
        ),
        (
            bool(bands),
            Patch(**_NOISE, label=f"95 % test-image noise ({', '.join(methods)})"),
        ),
        (paper, Line2D([], [], **_PAPER, label=PAPER_LABEL)),
    ]
    return [handle for shown, handle in kinds if shown]
