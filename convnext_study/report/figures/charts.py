"""Charts: a study's metric against what a network costs, and training curves, a line a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.report.figures import style
from convnext_study.results.metric_spec import MetricSpec, spec_of
from convnext_study.runs.records import Epoch, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING_LOSS = "training loss"
_POINTS = 90  # of a curve that are drawn; the last one always is


class Quantity(NamedTuple):
    """What is drawn against epochs: its ``value`` is None after an epoch that did not measure it.

    ``from_zero``: the axis begins at 0 and leaves out what shoots up early, as for a loss.
    """

    title: str
    value: Callable[[Epoch], float | None]
    from_zero: bool = False


class Curve(NamedTuple):
    """The epochs of one run, at least one.

    ``place`` is from 0 (pale) to 1 (strong), ``label`` its name in a file's legend, and ``about``
    is for `style.mark`.
    """

    epochs: Sequence[Epoch]
    place: float
    label: str = ""
    finished: bool = True
    about: Mapping[str, Any] | None = None


def quantities(records: Iterable[Record]) -> list[Quantity]:
    """The training loss, and every metric in the logs, the primary one first.

    A finished run says how a metric is called and written; without one it goes by its name.
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
    found = [Quantity(TRAINING_LOSS, lambda line: line.loss, from_zero=True)]
    for name in sorted(names, key=lambda one: one not in primary):
        spec = specs.get(name) or MetricSpec(name=name, label=name.replace("_", " "))
        found.append(_of_metric(spec))
    return found if lines else []


def _of_metric(spec: MetricSpec) -> Quantity:
    title = spec.axis.removesuffix(" ↓")
    return Quantity(title, lambda line: line.metrics.get(spec.name), not spec.higher_is_better)


@style.style()
def curves(found: Sequence[Curve], shown: Sequence[Quantity]) -> Figure:
    """Charts of these quantities; several of them have a legend and more shades."""
    from matplotlib import colormaps

    several = len(shown) > 1
    figure, charts = style.draw_charts([quantity.title for quantity in shown])
    for axes, quantity in zip(charts, shown, strict=True):
        top = _limit(axes, found, quantity)
        for curve in found:
            line = _thinned(curve.epochs, quantity.value)
            if not line:
                continue
            if len(line) == 1:
                line.append((line[0][0] + 0.01 * axes.get_xlim()[1], line[0][1]))
            shade: Any = style.COLOURS[f"c{round(7 * curve.place)}"]
            (drawn,) = axes.plot(
                [x for x, _ in line],
                [min(y, top) for _, y in line],
                color=colormaps["cividis"](curve.place) if several else shade,
                linewidth=1.2,
                linestyle="-" if curve.finished else (0, (4, 2)),
                label=style.clean(curve.label) or "_",
            )
            style.mark(drawn, curve.about)
    handles, labels = charts[0].get_legend_handles_labels()
    if several and handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=7.5)
    return figure


def _limit(axes: Axes, found: Sequence[Curve], quantity: Quantity) -> float:
    """Set the axes' limits. A loss that shoots up early may leave them, at the returned top."""
    values = sorted(y for curve in found for _, y in _thinned(curve.epochs, quantity.value))
    low, high = (values[0], values[-1]) if values else (0.0, 1.0)
    if quantity.from_zero and values and low >= 0:
        low, high = 0.0, values[int(0.985 * (len(values) - 1))] * 1.05
    room = 0.02 * (high - low) or 1.0
    epochs = max((curve.epochs[-1].epochs for curve in found), default=1)
    axes.set(xlim=(0, epochs), ylim=(low - room, high + room), xlabel="epoch")
    return high + room


def _thinned(
    lines: Sequence[Epoch], value: Callable[[Epoch], float | None]
) -> list[tuple[float, float]]:
    """At most about `_POINTS` of the epochs; those without a number are left out."""
    points = [(line.epoch, value(line)) for line in lines]
    there = [(float(x), y) for x, y in points if y is not None and math.isfinite(y)]
    every = max(1, math.ceil(len(there) / _POINTS))
    return [one for place, one in enumerate(there) if (len(there) - 1 - place) % every == 0]


class Point(NamedTuple):
    """A network by its number in the table: cost and value in the units of the axes.

    ``adopted`` ones are filled and joined by the road's line; ``about`` is for `style.mark`.
    """

    number: int
    cost: float
    value: float
    std: float | None = None
    adopted: bool = True
    about: Mapping[str, Any] | None = None


@style.style()
def cost(
    variants: Sequence[Point], titles: tuple[str, str], size: tuple[float, float] = style.CHART
) -> Figure:
    """A numbered mark for each point, with its standard deviation where it is known.

    ``titles`` are of the values and of the cost, each with its unit.
    """
    title, unit = titles
    figure, (axes,) = style.draw_charts([title], size)
    road = [point for point in variants if point.adopted]
    thin: dict[str, Any] = {"color": style.COLOURS["deep"], "linewidth": 0.8}
    axes.plot([one.cost for one in road], [one.value for one in road], alpha=0.6, **thin)
    for point in variants:
        at = (point.cost, point.value)
        if point.std is not None:
            error = axes.errorbar(*at, yerr=point.std, capsize=2, fmt="none", zorder=2, **thin)
            for part in (*error[1], *error[2]):
                style.mark(part, point.about)
        look = {"facecolor": style.COLOURS["bar"]} if point.adopted else style.OPEN
        edge: dict[str, Any] = {"edgecolor": style.COLOURS["deep"], "linewidth": 0.8, "zorder": 3}
        style.mark(axes.scatter(*at, s=120, **{**look, **edge}), point.about, "point")
        font: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "zorder": 4}
        colour = style.COLOURS["digit" if point.adopted else "ink"]
        style.mark(axes.text(*at, str(point.number), color=colour, **font), point.about)
    axes.margins(0.08)
    axes.set_xlabel(unit)
    return figure
