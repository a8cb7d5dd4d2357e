"""The anytime curve: accuracy against computation for each exit and arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from convnext_study.report.figures.style import COLOURS, draw_charts, style
from convnext_study.results.per_sample import image_noise
from convnext_study.results.subset_results import results_of
from convnext_study.studies.anytime.evidence import (
    Arms,
    exits_of,
    judged_by,
    macs_metric,
    miou_metric,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Accuracy against computation, exit by exit"
_MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class ExitPoint:
    """An arm at one exit, over its seeds.

    Args:
        arm: its name.
        label: for tables.
        exit: from 1.
        exits: how many the arm has.
        miou: the mean over seeds, in percent.
        std: between seeds, None with one.
        interval: of 95 % for the choice of test images.
        dense: multiply-accumulates where nothing is skipped.
        macs: at the masks of the validation images.
        computed: the share of positions, in percent.
        ece: the expected calibration error, in percent.
        milliseconds: of one core, None where they were not measured.
    """

    arm: str
    label: str
    exit: int
    exits: int
    miou: float
    std: float | None
    interval: tuple[float, float] | None
    dense: int
    macs: float
    computed: float
    ece: float
    milliseconds: float | None = None


def exit_points(arms: Arms, times: Mapping[str, Sequence[float]]) -> list[ExitPoint]:
    """Every exit of every arm; ``times`` are milliseconds to each exit, by arm."""
    return [
        _point(arms, arm, exit, times.get(arm, ()))
        for arm, records in arms.items()
        for exit in range(1, exits_of(records) + 1)
    ]


@style()
def curve(points: Sequence[ExitPoint], swept: Sequence[tuple[float, float]] = ()) -> Figure:
    """mIoU against MACs at the masks, and against milliseconds where they were measured.

    ``swept``: MACs (1e6) and mIoU of the last exit of one network at other thresholds.
    """
    timed = any(point.milliseconds is not None for point in points)
    titles = ["mIoU, %", "mIoU, % (one network of each, one core)"][: 1 + timed]
    figure, charts = draw_charts(titles, (5.2, 4.6), sharey=True)
    _draw(charts[0], points, lambda point: point.macs / 1e6, "MACs to the exit, M")
    if swept:
        look: dict[str, Any] = {"color": COLOURS["faint"], "linewidth": 1}
        charts[0].plot(
            *zip(*swept, strict=True),
            ":x",
            markersize=4,
            label="CA at other thresholds, one network",
            **look,
        )
    if timed:
        _draw(charts[1], points, lambda point: point.milliseconds, "milliseconds to the exit")
    figure.legend(*charts[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw(
    axes: Axes, points: Sequence[ExitPoint], cost: Callable[[ExitPoint], float | None], unit: str
) -> None:
    from matplotlib.ticker import LogLocator

    looks = _looks(points)
    for arm, look in looks.items():
        mine = [(cost(one), one) for one in points if one.arm == arm]
        there = [(x, one) for x, one in mine if x is not None]
        if not there:
            continue
        xs, ys = [x for x, _ in there], [one.miou for _, one in there]
        ends = [one.interval or (one.miou, one.miou) for _, one in there]
        reach = [
            [max(0.0, y - low) for y, (low, _) in zip(ys, ends, strict=True)],
            [max(0.0, high - y) for y, (_, high) in zip(ys, ends, strict=True)],
        ]
        axes.errorbar(
            xs, ys, yerr=reach, capsize=2, elinewidth=0.8, label=there[0][1].label, **look
        )
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _looks(points: Sequence[ExitPoint]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each arm; those with one exit are marks without a line."""
    looks: dict[str, dict[str, Any]] = {}
    for point in points:
        if point.arm not in looks:
            place = len(looks)
            looks[point.arm] = {
                "color": f"C{place % 10}",
                "marker": _MARKERS[place % len(_MARKERS)],
                "markersize": 5,
                "linewidth": 1.3,
                "linestyle": "none" if point.exits == 1 else "-",
            }
    return looks


def _point(arms: Arms, arm: str, exit: int, times: Sequence[float]) -> ExitPoint:
    records = arms[arm]
    results = results_of(records)
    judged = results_of(judged_by(records, miou_metric(records, exit)))
    values = [result.value for result in judged]
    noise = image_noise(judged).interval
    macs = macs_metric(records, exit)
    computed = [result.metrics.get(f"computed_exit{exit}") for result in results]
    cost = results[0].costs.get(f"exit{exit}") if exits_of(records) > 1 else None
    return ExitPoint(
        arm=arm,
        label=str(records[0].run.metadata["label"]),
        exit=exit,
        exits=exits_of(records),
        miou=fmean(values),
        std=stdev(values) if len(values) > 1 else None,
        interval=None if noise is None else (noise.low, noise.high),
        dense=(cost or results[0].cost).macs,
        macs=fmean(result.metrics[macs].value for result in results),
        computed=fmean(one.value if one else 100.0 for one in computed),
        ece=fmean(result.metrics[f"ece_exit{exit}"].value for result in results),
        milliseconds=times[exit - 1] if exit <= len(times) else None,
    )
