"""Charts: a study's metric against a network's cost, training curves with a line per run, and bars
from zero with intervals: attributions, by one method or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.report.figures import style
from convnext_study.results.metric_spec import MetricSpec, spec_of
from convnext_study.runs.records import Epoch, Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING_LOSS = "training loss"
_DOT = 120  # square points, of a numbered mark
_POINTS = 90  # drawn per curve, including the last one
_WIDTH, _BARS, _ROW, _HEAD = 4.3, 3.1, 0.4, 0.34  # inches, of panels, bars, rows and titles


class Quantity(NamedTuple):
    """What is drawn against epochs: its ``value`` is None after an epoch that did not measure it.

    ``from_zero``: the axis starts at 0 and cuts off early spikes, as for a loss.
    """

    title: str
    value: Callable[[Epoch], float | None]
    from_zero: bool = False


class Curve(NamedTuple):
    """The epochs of one run, at least one.

    ``shade`` is from 0 (pale) to 1 (strong), ``label`` its name in a file's legend, and ``attrs``
    is for `style.mark`.
    """

    epochs: Sequence[Epoch]
    shade: float
    label: str = ""
    finished: bool = True
    attrs: Mapping[str, Any] | None = None


def quantities(records: Iterable[Record]) -> list[Quantity]:
    """The training loss, and every metric in the logs, the primary one first.

    A metric's label and format come from a finished run; without one it is shown by its key.
    """
    records = list(records)
    lines = [line for record in records for line in record.epochs]
    specs = {
        name: spec_of(name, metric)
        for record in records
        if record.result
        for name, metric in record.result.metrics.items()
    }
    primary = {line.primary for line in lines}
    names = dict.fromkeys(name for line in lines for name in line.metrics)
    shown = [Quantity(TRAINING_LOSS, lambda line: line.loss, from_zero=True)]
    for name in sorted(names, key=lambda name: name not in primary):
        spec = specs.get(name) or MetricSpec(name=name, label=name.replace("_", " "))
        shown.append(_of_metric(spec))
    return shown if lines else []


def _of_metric(spec: MetricSpec) -> Quantity:
    title = spec.axis.removesuffix(" ↓")
    return Quantity(title, lambda line: line.metrics.get(spec.name), not spec.higher_is_better)


@style.style()
def curves(runs: Sequence[Curve], shown: Sequence[Quantity]) -> Figure:
    """A chart per quantity; several of them have a legend and more shades."""
    from matplotlib import colormaps

    several = len(shown) > 1
    figure, charts = style.draw_charts([quantity.title for quantity in shown])
    for axes, quantity in zip(charts, shown, strict=True):
        top = _limit(axes, runs, quantity)
        for curve in runs:
            line = _thinned(curve.epochs, quantity.value)
            if not line:
                continue
            if len(line) == 1:
                line.append((line[0][0] + 0.01 * axes.get_xlim()[1], line[0][1]))
            colour: Any = style.COLOURS[f"c{round(7 * curve.shade)}"]
            (plotted,) = axes.plot(
                [x for x, _ in line],
                [min(y, top) for _, y in line],
                color=colormaps["cividis"](curve.shade) if several else colour,
                linewidth=1.2,
                linestyle="-" if curve.finished else (0, (4, 2)),
                label=style.clean(curve.label) or "_",
            )
            style.mark(plotted, curve.attrs)
    handles, labels = charts[0].get_legend_handles_labels()
    if several and handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=7.5)
    return figure


def _limit(axes: Axes, runs: Sequence[Curve], quantity: Quantity) -> float:
    """Set the axes' limits. Early spikes of a loss may exceed the upper one, which is returned."""
    values = sorted(y for curve in runs for _, y in _thinned(curve.epochs, quantity.value))
    low, high = (values[0], values[-1]) if values else (0.0, 1.0)
    if quantity.from_zero and values and low >= 0:
        low, high = 0.0, values[int(0.985 * (len(values) - 1))] * 1.05
    margin = 0.02 * (high - low) or 1.0
    epochs = max((curve.epochs[-1].epochs for curve in runs), default=1)
    axes.set(xlim=(0, epochs), ylim=(low - margin, high + margin), xlabel="epoch")
    return high + margin


def _thinned(
    lines: Sequence[Epoch], value: Callable[[Epoch], float | None]
) -> list[tuple[float, float]]:
    """About `_POINTS` of the epochs at most; those without a number are left out."""
    points = [(line.epoch, value(line)) for line in lines]
    measured = [(float(x), y) for x, y in points if y is not None and math.isfinite(y)]
    every = max(1, math.ceil(len(measured) / _POINTS))
    return [point for i, point in enumerate(measured) if (len(measured) - 1 - i) % every == 0]


class Point(NamedTuple):
    """A network by its number in the table: cost and value in the units of the axes.

    ``adopted`` ones are filled and connected by the road's line; ``attrs`` is for `style.mark`.
    """

    number: int
    cost: float
    value: float
    std: float | None = None
    adopted: bool = True
    attrs: Mapping[str, Any] | None = None


@style.style()
def cost(
    points: Sequence[Point], titles: tuple[str, str], size: tuple[float, float] = style.CHART
) -> Figure:
    """A numbered mark per point, with its standard deviation where it is known.

    ``titles`` are those of the values and of the cost, with units.
    """
    title, unit = titles
    figure, (axes,) = style.draw_charts([title], size)
    road = [point for point in points if point.adopted]
    line: dict[str, Any] = {"color": style.COLOURS["deep"], "linewidth": 0.8}
    axes.plot([p.cost for p in road], [p.value for p in road], alpha=0.6, **line)
    for point in points:
        xy = (point.cost, point.value)
        if point.std is not None:
            ends = (point.value - point.std, point.value + point.std)
            caps: dict[str, Any] = {"marker": "_", "markersize": 4, "zorder": 2}
            style.mark(axes.plot([point.cost] * 2, ends, **caps, **line)[0], point.attrs)
        dot: Artist
        if point.adopted:  # a line of one point: scatter and errorbar take ten times as long
            face = {"markerfacecolor": style.COLOURS["bar"], "markeredgewidth": 0.8}
            (dot,) = axes.plot(*xy, "o", markersize=math.sqrt(_DOT), zorder=3, **face, **line)
        else:
            edge = {"edgecolor": style.COLOURS["deep"], "zorder": 3}
            dot = axes.scatter(*xy, s=_DOT, **{**style.OPEN, **edge, "linewidth": 0.8})
        style.mark(dot, point.attrs, "point")
        font: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "zorder": 4}
        colour = style.COLOURS["digit" if point.adopted else "ink"]
        style.mark(axes.text(*xy, str(point.number), color=colour, **font), point.attrs)
    axes.margins(0.08)
    axes.set_xlabel(unit)
    return figure


@dataclass(frozen=True)
class Bar:
    """A bar from zero, filled if it is significant, its number as text, and its interval.

    ``attrs`` is for `style.mark`.
    """

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None
    significant: bool = True
    attrs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Panel:
    """Bars under a title; ``colour`` is one of `style.COLOURS`."""

    title: str
    bars: Sequence[Bar]
    colour: str = "bar"


@style.style()
def bars(grid: Sequence[Sequence[Panel]], title: str = "", note: str = "") -> Figure:
    """Panels in rows and columns, with a title above and a note below all of them.

    Labels are above their bars: as readable on a phone as in a paper.
    """
    heights = [_HEAD + _ROW * max(len(panel.bars) for panel in line) + 0.08 for line in grid]
    y, width = sum(heights) + (0.3 if note else 0), _WIDTH * max(len(line) for line in grid)
    full_height = y + (0.42 if title else 0)
    figure = style.new_figure(width, full_height)
    heading: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "va": "center"}
    figure.text(0.1 / width, (y + 0.2) / full_height, style.clean(title), **heading)
    figure.text(0.1 / width, 0.1 / full_height, note, fontsize=8.5, color=style.FAINT)
    for line, height in zip(grid, heights, strict=True):
        for column, panel in enumerate(line):
            _draw_panel(figure, panel, _WIDTH * column + 0.1, y - _HEAD)
        y -= height
    return figure


def _draw_panel(figure: Figure, panel: Panel, left: float, top: float) -> None:
    """A panel whose bars start at these inches; rows are 1 high, from the top."""
    axes = style.add_panel(figure, left, top - _ROW * len(panel.bars), left + _BARS, top)
    ends = [0.0, *(end for bar in panel.bars for end in (bar.value, *(bar.interval or ())))]
    finite = [end for end in ends if math.isfinite(end)]
    low, high = min(finite), max(finite)
    axes.set(xlim=(low, high if high > low else low + 1), ylim=(len(panel.bars), 0))
    axes.set_title(panel.title)
    font: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    for i, bar in enumerate(panel.bars):
        y, colour = i + 0.72, style.COLOURS[panel.colour]
        axes.text(0, i + 0.27, style.fit(figure, bar.label, _WIDTH - 0.2)[0], **font)
        axes.text((_WIDTH - 0.2) / _BARS, y, bar.text, ha="right", **font)
        axes.vlines(0, y - 0.22, y + 0.22, color=style.FAINT, linewidth=0.8, zorder=0)
        fill = {"color": colour} if bar.significant else {**style.OPEN, "edgecolor": colour}
        parts: list[Any] = [*axes.barh(y, bar.value, 0.36, clip_on=False, **fill)]
        if bar.interval and all(map(math.isfinite, bar.interval)):
            parts.append(axes.hlines(y, *bar.interval, color=style.COLOURS["deep"], linewidth=1.2))
        for part in parts:
            style.mark(part, bar.attrs)
