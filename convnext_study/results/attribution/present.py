"""Findings on the screen, in files, and as bars of accuracy with MACs beside them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.records import write_bytes, write_json
from convnext_study.results.attribution.measured import Finding, Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType

_INK, _SURE, _UNSURE = "#222222", "#0072b2", "#b9c7d1"  # told apart without colour vision
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "svg.hashsalt": "convnext-study",
    "text.parse_math": False,
}
_DPI = 150


def render(findings: Findings) -> RenderableType:
    """A table for rich, its notes below it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=findings.title, box=box.SIMPLE_HEAD, title_justify="left")
    grid.show_edge, grid.padding = False, (0, 1, 0, 0)
    trained = any(line.top1 is not None for line in findings.lines)
    corrected = any(line.p is not None for line in findings.lines)
    unit, name = _unit(findings)
    grid.add_column("step")  # where room is short this column gives it
    heads = [f"{findings.head}\npoints", "95 % interval", *(["p"] if corrected else [])]
    heads += [f"MACs\n{name}", *(["its top-1 %", f"its MACs\n{name}", "seeds"] if trained else [])]
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for line in _all_lines(findings):
        cells = [_points(line), _interval(line)]
        cells += [_p(line.p)] if corrected else []
        cells.append(f"{line.macs / unit:+.3f}")
        if trained:
            macs = "" if line.network_macs is None else f"{line.network_macs / unit:.3f}"
            cells += ["" if line.top1 is None else f"{line.top1:.2f}", macs, str(line.seeds or "")]
        style = "bold" if line.told else ""
        label = Text(line.label, style=style, no_wrap=True, overflow="ellipsis")
        grid.add_row(label, *(Text(cell, style=style) for cell in cells))
    notes = [Text(note) for note in (*findings.notes, *_legend(findings))]
    return Group(Text(""), grid, *notes)


def write(findings: Findings, folder: Path) -> list[Path]:
    """Write ``KIND.json``, ``KIND.csv``, ``KIND.svg`` and ``KIND.png``; returns their paths."""
    paths = [folder / f"{findings.kind}.{end}" for end in ("json", "csv", "svg", "png")]
    write_json(paths[0], dataclasses.asdict(findings))
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Finding) if field.name != "interval"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "low", "high"])
    for line in _all_lines(findings):
        writer.writerow([getattr(line, name) for name in names] + list(line.interval or ("", "")))
    write_bytes(paths[1], text.getvalue().encode())
    for path, data in zip(paths[2:], _draw(findings), strict=True):
        write_bytes(path, data)
    return paths


def _all_lines(findings: Findings) -> Sequence[Finding]:
    return (*findings.lines, findings.total) if findings.total else findings.lines


def _unit(findings: Findings) -> tuple[float, str]:
    numbers = [max(abs(line.macs), line.network_macs or 0) for line in _all_lines(findings)]
    return (1e9, "G") if max(numbers, default=0.0) >= 1e9 else (1e6, "M")


def _points(line: Finding) -> str:
    return f"{'~' if line.told is False else ''}{line.points:+.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _interval(line: Finding) -> str:
    return "" if line.interval is None else f"{line.interval.low:+.2f} to {line.interval.high:+.2f}"


def _legend(findings: Findings) -> list[str]:
    unsure = any(line.told is False for line in findings.lines)
    return ["~: cannot be told from noise."] if unsure else []


def _draw(findings: Findings) -> tuple[bytes, bytes]:
    """Bars as SVG and PNG; the same findings give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        height = 1.3 + 0.3 * len(findings.lines)
        figure = Figure(figsize=(9, height), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
        figure.suptitle(findings.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _bars(left, findings)
        _macs(right, findings)
        found = []
        for kind, about in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=_DPI, metadata=about)
            found.append(data.getvalue())
    return found[0], found[1]


def _bars(axes: Axes, findings: Findings) -> None:
    places = range(len(findings.lines))
    points = [line.points for line in findings.lines]
    colours = [_UNSURE if line.told is False else _SURE for line in findings.lines]
    axes.barh(places, points, color=colours)
    for place, line in zip(places, findings.lines, strict=True):
        if line.interval is not None:
            axes.plot(line.interval, (place, place), color=_INK, linewidth=1.2)
    axes.set_yticks(list(places), [_short(line.label) for line in findings.lines])
    axes.set_ylim(len(findings.lines) - 0.4, -0.6)
    unsure = "; pale: not told from noise" if _UNSURE in colours else ""
    axes.set_xlabel(f"{findings.head}, points of top-1 (lines: 95 %){unsure}")
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _macs(axes: Axes, findings: Findings) -> None:
    unit, name = _unit(findings)
    axes.barh(
        range(len(findings.lines)),
        [line.macs / unit for line in findings.lines],
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
