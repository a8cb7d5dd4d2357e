"""Training curves: loss and accuracy of every epoch, a line a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.records import Epoch
from convnext_study.results.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES: tuple[tuple[str, Callable[[Epoch], float]], ...] = (
    ("training loss", lambda line: line.loss),
    ("validation loss", lambda line: line.val_loss),
    ("top-1 accuracy, %", lambda line: line.top1),
)
_POINTS = 90  # of a curve that are drawn; the last one always is


@dataclass(frozen=True)
class Curve:
    """The epochs of one run, at least one. ``label`` names it in a file's legend."""

    epochs: Sequence[Epoch]
    colour: str
    label: str = ""
    unfinished: bool = False
    key: str = ""
    width: float = 1.2


@style.style()
def chart(curves: Sequence[Curve], quantity: int) -> Figure:
    """One of `QUANTITIES`, for the page."""
    figure, (axes,) = style.draw_charts([QUANTITIES[quantity][0]], style.CHART)
    _draw(axes, curves, quantity)
    return figure


@style.style()
def charts(curves: Sequence[Curve]) -> Figure:
    """All `QUANTITIES` beside each other with a legend below, for a file."""
    figure, axes = style.draw_charts([name for name, _ in QUANTITIES], (3.8, 3.2))
    for place, panel in enumerate(axes):
        _draw(panel, curves, place)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.02, 0), ncols=4, fontsize=7.5
        )
    return figure


def _draw(axes: Axes, curves: Sequence[Curve], quantity: int) -> None:
    name, value = QUANTITIES[quantity]
    points = [_thinned(curve.epochs, value) for curve in curves]
    low, high = _limits([y for line in points for _, y in line], share="%" in name)
    room = 0.02 * (high - low)
    last = max((curve.epochs[-1].epochs for curve in curves), default=1)
    axes.set(xlim=(0, last), ylim=(low - room, high + room), xlabel="epoch")
    for curve, line in zip(curves, points, strict=True):
        if len(line) == 1:
            line = [line[0], (line[0][0] + last / 100, line[0][1])]
        (drawn,) = axes.plot(
            [x for x, _ in line],
            [min(y, high + room) for _, y in line],
            color=curve.colour,
            linewidth=curve.width,
            linestyle=(0, (4, 2)) if curve.unfinished else "-",
            label=style.clean(curve.label) or "_",
        )
        style.mark(drawn, curve.key)


def _thinned(lines: Sequence[Epoch], value: Callable[[Epoch], float]) -> list[tuple[float, float]]:
    """At most about `_POINTS` of the epochs; what is not a number is left out."""
    every = max(1, math.ceil(len(lines) / _POINTS))
    kept = [line for place, line in enumerate(lines) if (len(lines) - 1 - place) % every == 0]
    found = [(float(line.epoch), value(line)) for line in kept]
    return [point for point in found if math.isfinite(point[1])]


def _limits(values: Sequence[float], *, share: bool) -> tuple[float, float]:
    """What the axis shows. A loss that shoots up early may leave it, at the top."""
    if not values:
        return 0.0, 1.0
    if share:
        low, high = min(values), max(values)
    else:
        ranked = sorted(values)
        low, high = 0.0, ranked[int(0.985 * (len(ranked) - 1))] * 1.05
    return low, high if high > low else low + 1
