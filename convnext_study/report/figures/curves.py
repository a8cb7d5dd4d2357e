"""Training curves: loss and accuracy of every epoch, a line a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.report.figures import style
from convnext_study.runs.records import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITIES: dict[str, Callable[[Epoch], float]] = {
    "training loss": lambda line: line.loss,
    "validation loss": lambda line: line.metrics.get("val_loss", math.nan),
    "top-1 accuracy, %": lambda line: math.nan if line.value is None else line.value,
}
_POINTS = 90  # of a curve that are drawn; the last one always is


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


@style.style()
def curves(found: Sequence[Curve], names: Sequence[str] = tuple(QUANTITIES)) -> Figure:
    """Charts of the named `QUANTITIES`; several of them have a legend and more shades."""
    from matplotlib import colormaps

    several = len(names) > 1
    figure, charts = style.draw_charts(names)
    for axes, name in zip(charts, names, strict=True):
        top = _limit(axes, found, name)
        for curve in found:
            line = _thinned(curve.epochs, QUANTITIES[name])
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


def _limit(axes: Axes, found: Sequence[Curve], name: str) -> float:
    """Set the axes' limits. A loss that shoots up early may leave them, at the returned top."""
    values = sorted(y for curve in found for _, y in _thinned(curve.epochs, QUANTITIES[name]))
    low, high = (values[0], values[-1]) if values else (0.0, 1.0)
    if "%" not in name and values:
        low, high = 0.0, values[int(0.985 * (len(values) - 1))] * 1.05
    room = 0.02 * (high - low) or 1.0
    epochs = max((curve.epochs[-1].epochs for curve in found), default=1)
    axes.set(xlim=(0, epochs), ylim=(low - room, high + room), xlabel="epoch")
    return high + room


def _thinned(lines: Sequence[Epoch], value: Callable[[Epoch], float]) -> list[tuple[float, float]]:
    """At most about `_POINTS` of the epochs; what is not a number is left out."""
    every = max(1, math.ceil(len(lines) / _POINTS))
    kept = [line for place, line in enumerate(lines) if (len(lines) - 1 - place) % every == 0]
    return [(line.epoch, value(line)) for line in kept if math.isfinite(value(line))]
