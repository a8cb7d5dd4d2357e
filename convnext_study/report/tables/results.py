"""The table of a study's results. A new column is one line of `COLUMNS`, whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from convnext_study.report.tables.formatting import (
    Prefix,
    common_prefix,
    digits,
    duration,
    mean_std,
    signed,
    size,
)
from convnext_study.report.tables.render import write_tables
from convnext_study.report.tables.table import Column, Table, Tone, file_column, json_column
from convnext_study.results.noise import noise_note
from convnext_study.results.rows import ResultRow
from convnext_study.results.title import short_data

PAPER_LABEL = "paper, ImageNet-1K"
_EXCLUDED = 6  # lines about excluded runs on a terminal; all of them stand in results.json
_WIDE = 92  # characters of a terminal that has room for every column


def is_side(row: ResultRow) -> bool:
    """Whether a row was tried beside a road; sets of steps are on none."""
    return not row.adopted and row.order is not None


def macs_prefix(rows: Sequence[ResultRow]) -> Prefix:
    """In which a study's MACs are written, in figures as in the table."""
    return common_prefix(row.macs for row in rows)


def accuracy(row: ResultRow) -> str:
    """Mean and standard deviation over seeds, or why there is none."""
    return row.state if row.value is None else mean_std(row.value, row.std)


def seeds(row: ResultRow) -> str:
    """How many seeds are done, and of how many, where some are missing."""
    done = len(row.seeds)
    return str(done) if done == row.seeds_requested else f"{done}/{row.seeds_requested}"


def gain(row: ResultRow) -> str:
    """The gain over the parent, marked where it is not significant."""
    return ("~" if row.significant is False else "") + signed(row.gain)


def _label(row: ResultRow) -> str:
    return f"  └ {row.label}" if is_side(row) else row.label


def _accuracy_tone(row: ResultRow) -> Tone:
    return "faint" if row.value is None else ""


def _gain_tone(row: ResultRow) -> Tone:
    return "" if row.significant is None else "strong" if row.significant else "faint"


COLUMNS: list[Column[ResultRow]] = [
    Column("order", "#", lambda row: row.number, format=str, min_width=_WIDE),
    Column("label", "step", lambda row: row.label, "text", cell=_label),
    Column("mean", "top-1 %", lambda row: row.value, cell=accuracy, tone=_accuracy_tone),
    file_column("std", lambda row: row.std),
    Column("n", "seeds", lambda row: len(row.seeds), cell=seeds),
    file_column("ci", lambda row: row.interval, "interval"),
    Column("gain", "gain", lambda row: row.gain, cell=gain, tone=_gain_tone),
    file_column("significant", lambda row: row.significant),
    Column("macs", "MACs", lambda row: row.macs, prefixed=True),
    Column("params", "params", lambda row: row.params, format=digits(3), prefixed=True),
    file_column("activations", lambda row: row.activations),
    Column("peak_memory", "peak memory", lambda row: row.peak_memory, format=size, min_width=_WIDE),
    Column(
        "images_per_s", "images/s", lambda row: row.images_per_s, format=digits(0), min_width=_WIDE
    ),
    Column(
        "train_seconds", "time", lambda row: row.train_seconds, format=duration, min_width=_WIDE
    ),
    Column("paper_value", PAPER_LABEL, lambda row: row.paper_value),
    file_column("paper_gflops", lambda row: row.paper_gflops),
    file_column("name", lambda row: row.name, "text"),
    file_column("parent", lambda row: row.parent, "text"),
    file_column("section", lambda row: row.section, "text"),
    file_column("adopted", lambda row: row.adopted),
    file_column("state", lambda row: row.state, "text"),
    file_column("seeds_requested", lambda row: row.seeds_requested),
    file_column("val_images", lambda row: row.val_images),
    file_column("data", lambda row: short_data(row.data), "text"),
    file_column("recipe", lambda row: row.recipe, "text"),
    file_column("epochs", lambda row: row.epochs),
    file_column("study", lambda row: row.study, "text"),
    file_column("regime", lambda row: row.regime, "text"),
    json_column("seeds", lambda row: {str(seed): value for seed, value in row.seeds.items()}),
    json_column("statuses", lambda row: row.statuses),
    json_column("remarks", lambda row: row.remarks),
    json_column("excluded", lambda row: [asdict(one) for one in row.excluded]),
    json_column("provenance", lambda row: row.provenance),
    json_column("metadata", lambda row: row.metadata),
]


def results_table(
    rows: Sequence[ResultRow], ids: Mapping[str, str] | None = None, *, title: str | None = None
) -> Table[ResultRow]:
    """Accuracy and cost of every row. ``ids`` are the parts of the page that rows lead to."""
    link = (ids or {}).get
    heading = "Accuracy and cost of every row" if title is None else title
    return Table("results", heading, COLUMNS, rows, link=lambda row: link(row.name))


def terminal_table(rows: Sequence[ResultRow]) -> Table[ResultRow]:
    """The same with its legend and with what is not in it, below."""
    notes = [*_legend(rows), noise_note(rows), *_excluded(rows)]
    return results_table(rows, title="").with_notes(*notes)


def write_results(folder: Path, rows: Sequence[ResultRow], title: str) -> list[Path]:
    """Write ``results.json`` and ``results.csv``; returns their paths."""
    table = results_table(rows, title=title).with_notes(noise_note(rows))
    return write_tables([table], folder, ("json", "csv"))


def _legend(rows: Sequence[ResultRow]) -> list[str]:
    lines = []
    if any(row.gain is not None for row in rows):
        lines.append("gain: points over the step before; ~ where it is not significant.")
    if any(map(is_side, rows)):
        lines.append("└: tried beside the road and not adopted.")
    if any(row.paper_value is not None for row in rows):
        lines.append(f"{PAPER_LABEL}: the paper's own top-1, not measured here.")
    return lines


def _excluded(rows: Sequence[ResultRow]) -> list[str]:
    lines = [f"{row.label}: {remark}" for row in rows for remark in row.remarks]
    lines += [
        f"excluded from the means: {one.run} ({one.reason})" for r in rows for one in r.excluded
    ]
    more = len(lines) - _EXCLUDED
    return lines[:_EXCLUDED] + ([f"and {more} more, see results.json"] if more > 0 else [])
