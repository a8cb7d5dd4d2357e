"""Figures for a paper beside the road map: accuracy against cost, curves, what steps are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from convnext_study.results import panels
from convnext_study.results.attribution import Attribution, Effects
from convnext_study.results.figure import KINDS, save, style
from convnext_study.results.report.charts import QUANTITIES
from convnext_study.results.report.gather import Study
from convnext_study.results.report.tables.formatting import common_prefix
from convnext_study.results.statistics import Interval
from convnext_study.results.table import macs_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_more(study: Study, folder: Path) -> list[Path]:
    """Write ``cost`` and ``curves`` in every kind, where the study has what they show."""
    made: dict[str, Figure] = {}
    with style():
        if len({row.macs for row in study.done}) > 1:
            made["cost"] = _cost(study)
        if study.drawn and study.done:
            made["curves"] = _curves(study)
        return _save(made, folder)


def draw_attribution(attribution: Attribution, folder: Path) -> list[Path]:
    """Write ``attribution`` in every kind."""
    with style():
        return _save({"attribution": _attribution(attribution.tables)}, folder)


def _save(made: dict[str, Figure], folder: Path) -> list[Path]:
    kinds = tuple(KINDS)
    return [path for name, one in made.items() for path in save(one, folder, name, kinds)]


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for one in axes:
        _plain(one)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=panels.FAINT)


def _cost(study: Study) -> Figure:
    unit, letter = macs_unit(study.rows)
    figure, (axes,) = _figure(6.5, 4.2, 1)
    road = [row for row in study.done if row.adopted and row.macs is not None]
    axes.plot(
        [(row.macs or 0) / unit for row in road],
        [row.top1 or 0.0 for row in road],
        color=panels.DARK,
        linewidth=0.8,
        alpha=0.6,
    )
    for place, row in enumerate(study.rows, 1):
        if row.top1 is None or row.macs is None:
            continue
        at = (row.macs / unit, row.top1)
        face = panels.BLUE if row.adopted else "white"
        axes.errorbar(*at, yerr=row.sd, color=panels.DARK, linewidth=0.8, capsize=2, zorder=2)
        mark: Any = {"facecolor": face, "edgecolor": panels.DARK, "linewidth": 0.8, "zorder": 3}
        axes.scatter(*at, s=110, **mark)
        axes.annotate(str(place), at, ha="center", va="center", fontsize=7, zorder=4)
    axes.set_xlabel(f"MACs, {letter}; points are numbered as the rows of the table", fontsize=9)
    axes.set_ylabel("top-1 accuracy, %", fontsize=9)
    return figure


def _curves(study: Study) -> Figure:
    import matplotlib

    figure, axes = _figure(11, 3.4, 3)
    colours = matplotlib.colormaps["cividis"].resampled(max(len(study.rows), 2))
    for one, (name, value) in zip(axes, QUANTITIES, strict=True):
        for place, row in enumerate(study.rows):
            for number, record in enumerate(study.records(row.name)):
                one.plot(
                    [line.epoch for line in record.epochs],
                    [value(line) for line in record.epochs],
                    color=colours(place / max(len(study.rows) - 1, 1)),
                    linewidth=0.9,
                    label=row.label if number == 0 else "_",
                )
        one.set_xlabel("epoch", fontsize=9)
        one.set_ylabel(name, fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize=7, frameon=False)
    return figure


def _attribution(tables: Sequence[Effects]) -> Figure:
    """A line for each table: points, filled where significant, and MACs beside them."""
    from matplotlib.figure import Figure

    heights = [0.9 + 0.24 * len(table.rows) for table in tables]
    figure = Figure(figsize=(9.2, sum(heights)), facecolor="white", layout="constrained")
    grid = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights)
    for (left, right), table in zip(grid, tables, strict=True):
        unit, letter = common_prefix(row.macs for row in table.rows)
        points = [
            _Bar(row.label, row.diff, row.interval, row.significant is not False)
            for row in table.rows
        ]
        costs = [_Bar(row.label, row.macs / unit) for row in table.rows]
        _bars(left, f"{table.effect_label}, points of top-1", points, panels.BLUE)
        _bars(right, f"{table.effect_label}, MACs {letter}", costs, panels.GREY)
    return figure


class _Bar(NamedTuple):
    label: str
    value: float
    interval: Interval | None = None
    told: bool = True


def _bars(axes: Axes, title: str, bars: list[_Bar], colour: str) -> None:
    _plain(axes)
    places = range(len(bars))
    for place, bar in zip(places, bars, strict=True):
        open_bar: Any = {"facecolor": "white", "edgecolor": colour, "linestyle": "--"}
        axes.barh(place, bar.value, 0.6, **({"color": colour} if bar.told else open_bar))
        if bar.interval:
            axes.hlines(place, *bar.interval, color=panels.DARK, linewidth=1.2)
    axes.set_yticks(list(places), [bar.label for bar in bars], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=panels.FAINT, linewidth=0.8)
    axes.set_title(title, fontsize=9.5, loc="left")
