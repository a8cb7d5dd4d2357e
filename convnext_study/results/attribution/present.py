"""Findings on the screen, in files, and as bars of accuracy with MACs beside them."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_study.records import write_bytes, write_json
from convnext_study.results.attribution.measured import Finding, Findings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convnext_study.results.report.figures.attribution import Panel


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
    from convnext_study.results.report.figures.attribution import bars
    from convnext_study.results.report.figures.style import save

    paths = [folder / f"{findings.kind}.{end}" for end in ("json", "csv")]
    write_json(paths[0], dataclasses.asdict(findings))
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Finding) if field.name != "interval"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "low", "high"])
    for line in _all_lines(findings):
        writer.writerow([getattr(line, name) for name in names] + list(line.interval or ("", "")))
    write_bytes(paths[1], text.getvalue().encode())
    note = "Lines are 95 % intervals; open bars (~) cannot be told from noise."
    figure = bars([_panels(findings)], findings.title, note)
    return paths + save(figure, folder, findings.kind, ("svg", "png"))


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


def _panels(findings: Findings) -> list[Panel]:
    """Points, filled where told from noise, and MACs beside them."""
    from convnext_study.results.report.figures.attribution import Bar, Panel

    unit, letter = _unit(findings)
    points, macs = [], []
    for line in findings.lines:
        told = line.told is not False
        points.append(Bar(line.label, line.points, _points(line), line.interval, told))
        macs.append(Bar(line.label, line.macs, f"{line.macs / unit:+.3f} {letter}"))
    return [Panel(f"{findings.head}, points of top-1", points), Panel("MACs", macs, "grey")]
