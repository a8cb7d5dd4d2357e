"""Effects on the screen, in files, and as bars of accuracy with MACs beside them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from convnext_study.results.attribution import Effects

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SURE, _UNSURE = "#222222", "#0072b2", "#b9c7d1"  # told apart without colour vision
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "svg.hashsalt": "convnext-study",
    "text.parse_math": False,
}
_DPI = 150


def _unit(effects: Effects) -> tuple[float, str]:
    numbers = [max(abs(line.macs), line.network_macs or 0) for line in effects.rows]
    return (1e9, "G") if max(numbers, default=0.0) >= 1e9 else (1e6, "M")


def draw(effects: Effects) -> tuple[bytes, bytes]:
    """Bars as SVG and PNG; the same effects give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        height = 1.3 + 0.3 * len(effects.rows)
        figure = Figure(figsize=(9, height), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        figure.suptitle(effects.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _bars(left, effects)
        _macs(right, effects)
        found = []
        for kind, about in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=_DPI, metadata=about)
            found.append(data.getvalue())
    return found[0], found[1]


def _bars(axes: Axes, effects: Effects) -> None:
    places = range(len(effects.rows))
    points = [line.diff for line in effects.rows]
    colours = [_UNSURE if line.significant is False else _SURE for line in effects.rows]
    axes.barh(places, points, color=colours)
    for place, line in zip(places, effects.rows, strict=True):
        if line.interval is not None:
            axes.plot(line.interval, (place, place), color=_INK, linewidth=1.2)
    axes.set_yticks(list(places), [_short(line.label) for line in effects.rows])
    axes.set_ylim(len(effects.rows) - 0.4, -0.6)
    unsure = "; pale: not significant" if _UNSURE in colours else ""
    axes.set_xlabel(f"{effects.effect_label}, points of top-1 (lines: 95 %){unsure}")
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _macs(axes: Axes, effects: Effects) -> None:
    unit, name = _unit(effects)
    axes.barh(
        range(len(effects.rows)),
        [line.macs / unit for line in effects.rows],
        color="none",
        edgecolor=_INK,
        hatch="///",
        linewidth=0.8,
    )
    axes.set_xlabel(f"MACs, {name}")
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _short(label: str, most: int = 46) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
