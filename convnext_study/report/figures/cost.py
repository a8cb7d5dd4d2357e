"""A study's metric against what a network costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.report.figures import style
from convnext_study.report.figures.style import COLOURS, OPEN, mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    thin: dict[str, Any] = {"color": COLOURS["deep"], "linewidth": 0.8}
    axes.plot([one.cost for one in road], [one.value for one in road], alpha=0.6, **thin)
    for point in variants:
        at = (point.cost, point.value)
        if point.std is not None:
            error = axes.errorbar(*at, yerr=point.std, capsize=2, fmt="none", zorder=2, **thin)
            for part in (*error[1], *error[2]):
                mark(part, point.about)
        look = {"facecolor": COLOURS["bar"]} if point.adopted else OPEN
        edge: dict[str, Any] = {"edgecolor": COLOURS["deep"], "linewidth": 0.8, "zorder": 3}
        mark(axes.scatter(*at, s=120, **{**look, **edge}), point.about, "point")
        font: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "zorder": 4}
        colour = COLOURS["digit" if point.adopted else "ink"]
        mark(axes.text(*at, str(point.number), color=colour, **font), point.about)
    axes.margins(0.08)
    axes.set_xlabel(unit)
    return figure
