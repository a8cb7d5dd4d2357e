"""Figures for a paper beside the road map: accuracy against cost, curves, what steps are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.results import panels
from convnext_study.results.figure import KINDS, save, style
from convnext_study.results.report.charts import QUANTITIES
from convnext_study.results.report.gather import Study
from convnext_study.results.report.worth import Worth
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


def draw_worth(worth: Worth, folder: Path) -> list[Path]:
    """Write ``worth`` in every kind."""
    with style():
        return _save({"worth": _worth(worth)}, folder)


def _save(made: dict[str, Figure], folder: Path) -> list[Path]:
    kinds = tuple(KINDS)
    return [path for name, one in made.items() for path in save(one, folder, name, kinds)]


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=9, colors=panels.FAINT)
    return figure, axes


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


def _worth(worth: Worth) -> Figure:
    """Points and MACs side by side, for each way of asking."""
    unit, letter = macs_unit(worth.rows)
    panes: list[tuple[str, list[tuple[str, float, Any]]]] = []
    for title, changes in (("lost without it", worth.without), ("gained alone", worth.alone)):
        tests = [(one.label, one.comparison.difference) for one in changes]
        panes.append((f"{title}, points", [(name, d.points, d.interval) for name, d in tests]))
        costs = [(one.label, one.macs / unit, None) for one in changes if one.macs is not None]
        panes.append((f"{title}, MACs {letter}", costs))
    if worth.shares:
        shares = [(worth.labels[step], worth.shares.shares[step]) for step in worth.order]
        panes.append(
            ("Shapley value, points", [(name, one.value, one.interval) for name, one in shares])
        )
        if worth.macs:
            found = worth.macs.shares
            costs = [(worth.labels[s], found[s].value / unit, None) for s in worth.order]
            panes.append((f"Shapley value, MACs {letter}", costs))
    panes = [pane for pane in panes if pane[1]]
    longest = max(len(bars) for _, bars in panes)
    figure, axes = _figure(4.6 * len(panes), 1.2 + 0.3 * longest, len(panes))
    for one, (title, bars) in zip(axes, panes, strict=True):
        _bars(one, title, bars)
    return figure


def _bars(axes: Axes, title: str, bars: list[tuple[str, float, Any]]) -> None:
    places = range(len(bars))
    colour = panels.GREY if "MACs" in title else panels.BLUE
    axes.barh(list(places), [value for _, value, _ in bars], 0.6, color=colour)
    for place, (_, _, interval) in zip(places, bars, strict=True):
        if interval:
            axes.hlines(place, *interval, color=panels.DARK, linewidth=1.2)
    axes.set_yticks(list(places), [name for name, _, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=panels.FAINT, linewidth=0.8)
    axes.set_title(title, fontsize=9.5, loc="left")
