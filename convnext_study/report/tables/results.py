"""The table of a study's results. A new column is one line of `COLUMNS`, for all outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from convnext_study.report.tables.formatting import (
    Prefix,
    common_prefix,
    digits,
    duration,
    marked,
    mean_std,
    number,
    size,
)
from convnext_study.report.tables.render import write_tables
from convnext_study.report.tables.table import Column, Table, Tone, file_column, json_column
from convnext_study.results.effects import detectable_note
from convnext_study.results.grouping import ExcludedRun
from convnext_study.results.metric_spec import UNNAMED
from convnext_study.results.rows import ResultRow, shared_metric, short_data
from convnext_study.runs.metrics import NETWORK

PAPER_LABEL = "paper, ImageNet-1K"
SIGNIFICANT = "* significant (Welch's t test on seeds, Holm's correction)"
_EXCLUDED = 6  # lines about excluded runs on a terminal; results.json has all of them
_WIDE = 92  # characters; the terminal width from which every column is shown


def is_side(row: ResultRow) -> bool:
    """Whether a row was tried beside the road and not adopted; sets of steps are on no road."""
    return not row.adopted and row.order is not None


def macs_prefix(rows: Sequence[ResultRow]) -> Prefix:
    """The prefix of a study's MACs, in figures and tables."""
    return common_prefix(row.macs for row in rows)


def mean(row: ResultRow) -> str:
    """Mean and standard deviation over seeds, or why there is none."""
    return row.state if row.value is None else mean_std(row.value, row.std, row.metric.decimals)


def mean_in_words(row: ResultRow) -> str:
    """The same with its unit."""
    return mean(row) if row.value is None else f"{mean(row)} {row.metric.unit}".rstrip()


def seeds(row: ResultRow) -> str:
    """The number of finished seeds; ``1/3`` where some are missing."""
    done = len(row.seeds)
    return str(done) if done == row.seeds_requested else f"{done}/{row.seeds_requested}"


def gain(row: ResultRow) -> str:
    """The gain over the parent, marked where it is significant."""
    return marked(row.gain, row.significant, row.metric.decimals)


def _tone(row: ResultRow) -> Tone:
    return "" if row.significant is None else "strong" if row.significant else "faint"


COLUMNS: list[Column[ResultRow]] = [
    Column("order", "#", lambda row: row.number, format=str, min_width=_WIDE),
    Column("label", "step", kind="text", cell=lambda row: f"{'  └ ' * is_side(row)}{row.label}"),
    Column(
        "value",
        lambda rows: shared_metric(rows).heading,
        lambda row: row.value,
        cell=mean,
        tone=lambda row: "faint" if row.value is None else "",
    ),
    file_column("metric", lambda row: row.metric.name or None, "text"),
    file_column("unit", lambda row: row.metric.unit, "text"),
    file_column("higher_is_better", lambda row: row.metric.higher_is_better),
    file_column("std"),
    Column("n", "seeds", lambda row: len(row.seeds), cell=seeds),
    file_column("ci", lambda row: row.interval, "interval"),
    file_column("ci_method", lambda row: row.interval_method or None, "text"),
    Column("gain", "gain", cell=gain, tone=_tone),
    file_column("significant"),
    Column("macs", "MACs", prefixed=True),
    Column("params", "params", format=digits(3), prefixed=True),
    file_column("activations"),
    Column("peak_memory", "peak memory", format=size, min_width=_WIDE),
    Column("images_per_s", "images/s", format=digits(0), min_width=_WIDE),
    Column("train_seconds", "time", format=duration, min_width=_WIDE),
    Column("paper_value", PAPER_LABEL),
    file_column("paper_gflops"),
    file_column("name", kind="text"),
    file_column("parent", kind="text"),
    file_column("section", kind="text"),
    file_column("adopted"),
    file_column("state", kind="text"),
    file_column("seeds_requested"),
    file_column("val_images"),
    file_column("data", lambda row: short_data(row.data), "text"),
    file_column("recipe", kind="text"),
    file_column("epochs"),
    file_column("study", kind="text"),
    file_column("regime", kind="text"),
    json_column("metrics"),
    json_column("costs"),
    json_column("seeds", lambda row: {str(seed): value for seed, value in row.seeds.items()}),
    json_column("statuses"),
    json_column("remarks"),
    json_column(
        "excluded", lambda row: [{"run": run.run, "reason": run.reason} for run in row.excluded]
    ),
    json_column("provenance"),
    json_column("metadata"),
]


def results_table(
    rows: Sequence[ResultRow], ids: Mapping[str, str] | None = None, *, title: str | None = None
) -> Table[ResultRow]:
    """Metric and cost of every row. ``ids`` are the elements of the page that rows link to.

    Where metrics differ, a column names them; further metrics and costs are columns of files.
    """
    link, metric = (ids or {}).get, shared_metric(rows)
    mixed = metric.name == "" and any(row.value is not None for row in rows)
    columns = [
        replace(column, screen=True) if mixed and column.key == "metric" else column
        for column in COLUMNS
    ]
    heading = f"{metric.title} and cost of every row" if title is None else title
    columns += _further(rows)
    return Table("results", heading, columns, rows, link=lambda row: link(row.name))


def _further(rows: Sequence[ResultRow]) -> list[Column[ResultRow]]:
    """A file column per other metric, and per cost of a part of the network."""
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    costs = dict.fromkeys(
        (part, name)
        for row in rows
        for part, values in row.costs.items()
        for name, value in values.items()
        if isinstance(value, int | float) and not (part == NETWORK and hasattr(row, name))
    )

    def metric(name: str) -> Column[ResultRow]:
        return file_column(f"metric_{name}", lambda row: row.metrics.get(name))

    def cost(part: str, name: str) -> Column[ResultRow]:
        return file_column(f"cost_{part}_{name}", lambda row: row.costs.get(part, {}).get(name))

    return [*map(metric, metrics), *(cost(*key) for key in costs)]


def terminal_table(rows: Sequence[ResultRow]) -> Table[ResultRow]:
    """The same with its legend and the excluded runs in notes."""
    notes = [*_legend(rows), detectable_note(rows), *_excluded(rows)]
    return results_table(rows, title="").with_notes(*notes)


def write_results(folder: Path, rows: Sequence[ResultRow], title: str) -> list[Path]:
    """Write ``results.json`` and ``results.csv``; returns their paths."""
    table = results_table(rows, title=title).with_notes(detectable_note(rows))
    return write_tables([table], folder, ("json", "csv"))


def _legend(rows: Sequence[ResultRow]) -> list[str]:
    lines, metric = [], shared_metric(rows)
    if any(row.gain is not None for row in rows):
        unit = metric.step_unit or metric.label
        direction = (
            f"{unit} over the previous step"
            if metric.higher_is_better
            else f"{unit} below the previous step, as a lower {metric.label} is better"
        )
        lines.append(f"gain: {direction}; {SIGNIFICANT}.")
    if any(map(is_side, rows)):
        lines.append("└: tried beside the road, not adopted.")
    if any(row.paper_value is not None for row in rows):
        lines.append(f"{PAPER_LABEL}: the paper's own {metric.label}, not measured here.")
    return lines


def _excluded(rows: Sequence[ResultRow]) -> list[str]:
    lines = [f"{row.label}: {remark}" for row in rows for remark in row.remarks]
    lines += [
        f"excluded from the means: {run.run} ({run.reason})" for row in rows for run in row.excluded
    ]
    hidden = len(lines) - _EXCLUDED
    return lines[:_EXCLUDED] + ([f"and {hidden} more, see results.json"] if hidden > 0 else [])


def _excluded_heading(runs: Sequence[ExcludedRun]) -> str:
    headings = {run.metric.heading for run in runs if run.value is not None}
    return headings.pop() if len(headings) == 1 else UNNAMED.heading


EXCLUDED_COLUMNS: list[Column[ExcludedRun]] = [
    Column("run", "run", kind="text"),
    Column("label", "row", lambda run: run.row, "text"),
    Column("seed", "seed", format=str),
    Column("state", "state", kind="text"),
    Column("value", _excluded_heading, cell=lambda run: number(run.value, run.metric.decimals)),
    Column("reason", "reason", kind="text"),
]


def excluded_table(runs: Sequence[ExcludedRun]) -> Table[ExcludedRun] | None:
    """Every excluded run with the reason; None where there is none."""
    return (
        Table("excluded", "Runs excluded from every mean", EXCLUDED_COLUMNS, runs) if runs else None
    )
