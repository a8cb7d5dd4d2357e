"""Bars about zero with their intervals: what each step is worth, asked in one way or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.results.report.figures import style
from convnext_study.results.report.figures.style import COLOURS, INK, OPEN, mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ROW, _HEAD = 4.3, 0.4, 0.34  # inches


@dataclass(frozen=True)
class Bar:
    """A bar from zero, the ends of its interval, and whether it is filled.

    ``text`` is its number as printed, ``detail`` all that is said of it on the page.
    """

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None
    significant: bool = True
    detail: str = ""
    key: str = ""


@dataclass(frozen=True)
class Panel:
    """Bars under a title; ``colour`` is one of `style.COLOURS`."""

    title: str
    bars: Sequence[Bar]
    colour: str = "bar"


@style.style()
def bars(grid: Sequence[Sequence[Panel]], title: str = "", note: str = "") -> Figure:
    """Panels in rows and columns, with a title above and a note below all of them.

    Labels stand above their bars: as readable on a phone as in a paper.
    """
    heights = [_HEAD + _ROW * max(len(panel.bars) for panel in line) + 0.08 for line in grid]
    top, foot = (0.42 if title else 0.0), (0.3 if note else 0.0)
    width = _WIDTH * max(len(line) for line in grid)
    figure = style.new_figure(width, top + sum(heights) + foot)
    y = sum(heights) + foot
    if title:
        place = (0.1 / width, (y + 0.18) / (y + top))
        figure.text(*place, style.clean(title), fontsize=12, fontweight="bold", va="center")
    if note:
        figure.text(0.1 / width, 0.1 / (y + top), note, fontsize=8.5, color=style.FAINT)
    for line, height in zip(grid, heights, strict=True):
        for column, panel in enumerate(line):
            left = _WIDTH * column + 0.1
            rows = _HEAD + _ROW * len(panel.bars)
            _draw(style.add_panel(figure, left, y - rows, left + _WIDTH - 1.2, y - _HEAD), panel)
        y -= height
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    """Rows of 1, from the top."""
    ends = [0.0]
    for bar in panel.bars:
        ends += [bar.value, *(bar.interval or ())]
    finite = [end for end in ends if math.isfinite(end)]
    low, high = min(finite), max(finite)
    axes.set(xlim=(low, high if high > low else low + 1), ylim=(len(panel.bars), 0))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(panel.title)
    axes.vlines(0, 0, len(panel.bars), color=style.FAINT, linewidth=0.8)
    across = axes.get_yaxis_transform()
    for place, bar in enumerate(panel.bars):
        label, _ = style.fit(axes.figure, bar.label, _WIDTH - 0.2)  # type: ignore[arg-type]
        axes.text(0, place + 0.27, label, transform=across, va="center")
        number: dict[str, Any] = {"transform": across, "va": "center", "ha": "right"}
        at = (_WIDTH - 0.2) / (_WIDTH - 1.2)
        axes.text(at, place + 0.73, bar.text, **number, color=INK)
        colour = COLOURS[panel.colour]
        look = {"color": colour} if bar.significant else {**OPEN, "edgecolor": colour}
        parts: list[Any] = list(axes.barh(place + 0.73, bar.value, 0.36, clip_on=False, **look))
        if bar.interval and all(map(math.isfinite, bar.interval)):
            parts.append(
                axes.hlines(place + 0.73, *bar.interval, color=COLOURS["deep"], linewidth=1.2)
            )
        for part in parts:
            mark(part, bar.key)
