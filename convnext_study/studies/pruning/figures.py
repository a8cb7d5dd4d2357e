"""Accuracy against a network's cost: parameters, MACs and measured latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convnext_study.benchmarks.timing import Spread
from convnext_study.report.figures.style import COLOURS, draw_charts, style
from convnext_study.studies.pruning import arms as of
from convnext_study.studies.pruning.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Accuracy against cost, after removal"
SIZE = (3.6, 3.4)  # inches, each panel
# The arms in the figure: the colour's name, the marker, and whether it is filled.
_LOOKS: dict[str, tuple[str, str, bool]] = {
    of.DENSE: ("ink", "*", True),
    of.FINE_TUNED: ("mark", "v", True),
    of.INHERITED: ("mark", "o", False),
    of.SCRATCH_E: ("link", "^", True),
    of.SCRATCH_B: ("link", "s", True),
    of.SCRATCH_T: ("link", "D", False),
}
# What a panel's horizontal axis measures.
AXES: tuple[tuple[str, Callable[[Row, Spread], float]], ...] = (
    ("parameters, thousands", lambda row, latency: row.params / 1e3),
    ("MACs, M", lambda row, latency: row.macs / 1e6),
    ("latency, ms per image", lambda row, latency: latency.median),
)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of (cost, value) in ascending order of cost; higher values are better."""
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((cost, value))
    return best


@style()
def pareto(rows: Mapping[str, Row], latencies: Mapping[str, Spread]) -> Figure:
    """A panel per kind of cost; the stepped line is the front of all networks, other lines join the
    amounts of one method.

    Masked networks are left out: nothing was removed from them.
    """
    shown = [row for row in rows.values() if row.arm in _LOOKS and not row.is_masked]
    figure, charts = draw_charts([title for title, _ in AXES], SIZE, sharey=True)
    for axes, (_, cost) in zip(charts, AXES, strict=True):
        _panel(axes, [(row, cost(row, latencies[row.name])) for row in shown])
    charts[0].set_ylabel(shown[0].result.metric.heading)
    handles, labels = charts[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, points: Sequence[tuple[Row, float]]) -> None:
    sign = 1 if points[0][0].result.metric.higher_is_better else -1
    best = front([(cost, sign * row.mean) for row, cost in points])
    costs, values = [cost for cost, _ in best], [sign * value for _, value in best]
    thin: dict[str, Any] = {"linewidth": 0.8, "zorder": 1}
    axes.step(
        [*costs, max(cost for _, cost in points)],
        [*values, values[-1]],
        where="post",
        color=COLOURS["faint"],
        label="Pareto front",
        **thin,
    )
    for arm, (name, mark, filled) in _LOOKS.items():
        own, colour = [(row, cost) for row, cost in points if row.arm == arm], COLOURS[name]
        curves: dict[tuple[str, Any], list[tuple[float, float]]] = {}
        for row, cost in own:  # one curve per network and method
            if method := row.run.metadata["method"]:
                curves.setdefault((row.network, method), []).append((cost, row.mean))
        for curve in curves.values():
            if len(curve) > 1:
                axes.plot(*zip(*sorted(curve), strict=True), color=colour, alpha=0.5, **thin)
        if own:
            axes.errorbar(
                [cost for _, cost in own],
                [row.mean for row, _ in own],
                yerr=[row.std or 0.0 for row, _ in own],
                elinewidth=0.8,
                label=of.LABELS[arm],
                color=colour,
                marker=mark,
                markersize=9 if mark == "*" else 5,
                markerfacecolor=colour if filled else "none",
                linestyle="none",
            )
    axes.margins(0.08)
