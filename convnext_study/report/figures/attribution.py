"""Bar charts about zero with intervals: attributions, by one method or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.report.figures import style
from convnext_study.report.figures.style import COLOURS, OPEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _BARS, _ROW, _HEAD = 4.3, 3.1, 0.4, 0.34  # inches, of panels, bars, rows and titles


@dataclass(frozen=True)
class Bar:
    """A bar from zero, filled if it is significant, its number as text, and its interval's ends.

    ``about`` is for `style.mark`.
    """

    label: str
    value: float
    text: str
    interval: tuple[float, float] | None = None
    significant: bool = True
    about: Mapping[str, Any] | None = None


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
    y, width = sum(heights) + (0.3 if note else 0), _WIDTH * max(len(line) for line in grid)
    whole = y + (0.42 if title else 0)
    figure = style.new_figure(width, whole)
    heading: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "va": "center"}
    figure.text(0.1 / width, (y + 0.2) / whole, style.clean(title), **heading)
    figure.text(0.1 / width, 0.1 / whole, note, fontsize=8.5, color=style.FAINT)
    for line, height in zip(grid, heights, strict=True):
        for column, panel in enumerate(line):
            _draw(figure, panel, _WIDTH * column + 0.1, y - _HEAD)
        y -= height
    return figure


def _draw(figure: Figure, panel: Panel, left: float, top: float) -> None:
    """A panel whose bars begin at these inches; rows are 1 high, from the top."""
    axes = style.add_panel(figure, left, top - _ROW * len(panel.bars), left + _BARS, top)
    ends = [0.0, *(end for bar in panel.bars for end in (bar.value, *(bar.interval or ())))]
    finite = [end for end in ends if math.isfinite(end)]
    low, high = min(finite), max(finite)
    axes.set(xlim=(low, high if high > low else low + 1), ylim=(len(panel.bars), 0))
    axes.set_title(panel.title)
    font: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center"}
    for place, bar in enumerate(panel.bars):
        y, colour = place + 0.72, COLOURS[panel.colour]
        axes.text(0, place + 0.27, style.fit(figure, bar.label, _WIDTH - 0.2)[0], **font)
        axes.text((_WIDTH - 0.2) / _BARS, y, bar.text, ha="right", **font)
        axes.vlines(0, y - 0.22, y + 0.22, color=style.FAINT, linewidth=0.8, zorder=0)
        look = {"color": colour} if bar.significant else {**OPEN, "edgecolor": colour}
        parts: list[Any] = [*axes.barh(y, bar.value, 0.36, clip_on=False, **look)]
        if bar.interval and all(map(math.isfinite, bar.interval)):
            parts.append(axes.hlines(y, *bar.interval, color=COLOURS["deep"], linewidth=1.2))
        for part in parts:
            style.mark(part, bar.about)
