"""The report's tables, once, as cells: the page, CSV, Markdown and LaTeX are made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convnext_study.records import Record
from convnext_study.results.report import formats
from convnext_study.results.report.apart import Apart
from convnext_study.results.report.gather import Study
from convnext_study.results.statistics import Comparison
from convnext_study.results.summary import Row
from convnext_study.results.table import macs_unit


@dataclass(frozen=True)
class Cell:
    """``text`` for people, ``value`` to sort by and for machines (None: none, sorted last)."""

    text: str
    value: float | str | None = None
    faint: bool = False
    link: str | None = None  # id of the panel it opens


@dataclass(frozen=True)
class Column:
    name: str  # for machines
    head: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Columns and rows of as many cells. ``name`` is its file's, ``caption`` says what it is."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[list[Cell]]


def words(text: object, link: str | None = None) -> Cell:
    return Cell(str(text), str(text), link=link)


def figure(value: float | None, text: str | None = None, *, faint: bool = False) -> Cell:
    if value is None or math.isinf(value):
        return Cell(text or "")
    return Cell(formats.plain(value) if text is None else text, value, faint)


def results_table(study: Study, ids: dict[str, str]) -> Table:
    """Every row: accuracy, change, cost."""
    unit, letter = macs_unit(study.rows)
    # Facts of other studies than a road map, where rows have one plain value for them.
    paper = any(row.paper_top1 is not None for row in study.rows)
    memory = {row.name: memory_of(study.records(row.name)) for row in study.rows}
    columns = [
        Column("order", "#"),
        Column("step", "step", numeric=False),
        Column("top1", "top-1 %"),
        Column("sd", "± seeds"),
        Column("seeds", "seeds"),
        Column("gain", "gain"),
        Column("macs", f"MACs, {letter}"),
        Column("params", "params, M"),
        *([Column("memory", "peak memory, MiB")] if any(memory.values()) else []),
        Column("images_per_s", "images/s"),
        Column("seconds", "time"),
        *([Column("paper_top1", "paper, ImageNet-1K")] if paper else []),
    ]
    rows = []
    for place, row in enumerate(study.rows, 1):
        told = study.tests.told(row.name)
        mark = "~" if told is False else ""
        cells = {
            "order": figure(place, str(place)),
            "step": words(row.label + (" (tried)" if is_side(row) else ""), ids.get(row.name)),
            "top1": figure(row.top1, formats.plain(row.top1) or row.state, faint=row.top1 is None),
            "sd": figure(row.sd),
            "seeds": figure(len(row.seeds), formats.seeds(row)),
            "gain": figure(row.gain, mark + formats.signed(row.gain), faint=told is False),
            "macs": figure(row.macs, formats.plain(row.macs, 2, 1 / unit)),
            "params": figure(row.params, formats.plain(row.params, 3, 1e-6)),
            "memory": figure(memory[row.name], formats.plain(memory[row.name], 0, 2**-20)),
            "images_per_s": figure(row.images_per_s, formats.plain(row.images_per_s, 0)),
            "seconds": figure(row.seconds, formats.duration(row.seconds)),
            "paper_top1": figure(row.paper_top1),
        }
        rows.append([cells[column.name] for column in columns])
    return Table("results", "Accuracy and cost of every row", tuple(columns), rows)


def is_side(row: Row) -> bool:
    """Whether a row was tried beside a road; sets of steps are on none."""
    return not row.adopted and row.order is not None


def memory_of(records: Sequence[Record]) -> float | None:
    """The most bytes that training took, where the runs recorded it."""
    found = [
        value
        for record in records
        if record.result
        for name, value in (record.result.model_extra or {}).items()
        if "memory" in name and isinstance(value, int | float)
    ]
    return max(found, default=None)


def tests_table(study: Study, ids: dict[str, str]) -> Table | None:
    """Every row against its parent, by both tests."""
    if not study.tests.plain:
        return None
    labels = {row.name: row.label for row in study.rows}
    pooled = bool(study.tests.pooled)
    columns = [
        Column("step", "step", numeric=False),
        Column("parent", "against", numeric=False),
        *test_columns(""),
        *(test_columns("pooled_")[1:] if pooled else ()),
    ]
    rows = []
    for row in study.rows:
        if row.name not in study.tests.plain:
            continue
        rows.append(
            [
                words(row.label, ids.get(row.name)),
                words(labels.get(row.parent or "", row.parent or "")),
                *test_cells(study.tests.plain[row.name]),
                *(test_cells(study.tests.pooled.get(row.name))[1:] if pooled else ()),
            ]
        )
    caption = "Every row against the one before it; the last column of each test is its verdict"
    return Table("differences", caption, tuple(columns), rows)


def test_columns(prefix: str) -> tuple[Column, ...]:
    kind = "pooled " if prefix else ""
    return (
        Column(f"{prefix}points", "points"),
        Column(f"{prefix}interval", f"{kind}95 % interval"),
        Column(f"{prefix}p", f"{kind}p"),
        Column(f"{prefix}p_holm", f"{kind}Holm p"),
        Column(f"{prefix}verdict", f"{kind}from noise", numeric=False),
    )


def test_cells(test: Comparison | None) -> list[Cell]:
    if test is None:
        return [Cell("")] * 5
    told = test.distinguishable
    verdict = "told" if told else "not told"
    return [
        figure(test.difference.points, formats.signed(test.difference.points)),
        Cell(formats.interval(test.difference.interval), test.difference.interval.low),
        figure(test.difference.p, _p(test.difference.p)),
        figure(test.p_corrected, _p(test.p_corrected)),
        Cell(verdict, verdict, faint=not told),
    ]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def apart_table(found: Sequence[Apart], name: str = "kept_apart") -> Table | None:
    """Runs that no mean counts, with the reason."""
    if not found:
        return None
    columns = (
        Column("run", "run", numeric=False),
        Column("row", "row", numeric=False),
        Column("seed", "seed"),
        Column("state", "state", numeric=False),
        Column("top1", "top-1 %"),
        Column("reason", "why it is apart", numeric=False),
    )
    rows = [
        [
            words(one.run),
            words(one.row),
            figure(one.seed, "" if one.seed is None else str(one.seed)),
            words(one.state),
            figure(one.top1),
            words(one.reason),
        ]
        for one in found
    ]
    return Table(name, "Runs kept out of every mean", columns, rows)
