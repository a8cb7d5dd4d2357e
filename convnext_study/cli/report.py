"""``report`` writes a page with figures and tables; ``power`` computes how many seeds to train."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import Json, finite, print_json, warn_of_unreadable
from convnext_study.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from convnext_study.results.load import StudyFolder
    from convnext_study.results.metric_spec import MetricSpec
    from convnext_study.results.statistics.intervals import PooledStd


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of one or more studies.")],
    out: Annotated[
        Path | None, typer.Option(help="Output folder. (default: FOLDER/report)")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Rewrite the page while the study runs.")
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, max=86_400, help="Seconds between checks, with --watch.")
    ] = 5,
    any_commit: Annotated[
        bool, typer.Option("--any-commit", help="Average runs from different commits too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a study's report: one self-contained HTML page, figures, and tables.

    Figures are SVG, PDF and PNG; tables are CSV, JSON, Markdown and LaTeX. With --watch, the page
    is updated until Ctrl-C.
    """
    from convnext_study.cli.reproduce import commands
    from convnext_study.report.tables.results import results_table
    from convnext_study.report.write import write_page, write_report

    if out is None:
        out = folder / "report"
        if out.is_symlink():  # the folder may come from elsewhere
            raise UserError(f"{out}: is a link; name the folder for the report with --out")
    reproduce = functools.partial(commands, folder=folder.resolve().name)
    if watch:
        _watch(
            folder,
            lambda: write_page(folder, out, reproduce, refresh=every, any_commit=any_commit),
            every,
        )
    paths, loaded = write_report(folder, out, reproduce, any_commit=any_commit)
    warn_of_unreadable(loaded.broken)
    if as_json:
        rows = {study.name: results_table(study.rows).records() for study in loaded.studies}
        print_json({"files": [str(path) for path in paths], "studies": rows})
        return
    size = paths[0].stat().st_size
    typer.echo(
        f"written: {paths[0]} ({size / 1e3:,.0f} kB) and {len(paths) - 1} figures and tables"
    )


def _watch(folder: Path, write: Callable[[], tuple[Path, StudyFolder]], every: int) -> None:
    """Write the page again whenever a record changes, until Ctrl-C."""
    previous = None
    try:
        while True:
            if (current := _state(folder)) != previous:
                path, loaded = write()
                done = sum(len(row.seeds) for study in loaded.studies for row in study.rows)
                stamp = time.strftime("%H:%M:%S")
                line = f"{stamp}  {path}: {done} finished runs; press Ctrl-C to end"
                typer.echo(line, err=True)  # standard output may be JSON
                previous = current
            time.sleep(every)
    except KeyboardInterrupt:
        typer.echo("watch ended: writing the final page, figures and tables", err=True)


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and modification time of every record's files."""
    by_path = {}
    for pattern in ("run.json", "log.jsonl", "result.json", "lock"):
        for path in folder.rglob(pattern):
            with contextlib.suppress(OSError):  # removed meanwhile
                status = path.lstat()
                by_path[path] = (status.st_size, status.st_mtime_ns)
    return by_path


def power(
    effect: Annotated[
        float,
        typer.Option(
            callback=finite,
            help="Difference to detect, in the metric's unit; percentage points for percent.",
        ),
    ],
    study: Annotated[
        Path | None,
        typer.Option(help="Folder of a study with several seeds. (default: the paper's Table 10)"),
    ] = None,
    power: Annotated[
        float, typer.Option(callback=finite, help="Power: share of studies that should detect it.")
    ] = 0.8,
    alpha: Annotated[float, typer.Option(callback=finite, help="Significance level.")] = 0.05,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Number of steps tested together (Holm).")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Compute how many seeds each network needs to detect a difference."""
    from convnext_study.report.tables.formatting import percent
    from convnext_study.results.paper import PAPER_METRIC, paper_std
    from convnext_study.results.statistics.power import seeds_needed

    std, metric = (paper_std(), PAPER_METRIC) if study is None else _pooled_std(study)
    needed = seeds_needed(
        effect,
        std,
        power=power,
        alpha=alpha,
        tests=steps,
        unit=metric.step_unit,
    )
    if as_json:
        values = {
            "seeds": needed.seeds,
            "reached": round(needed.reached, 6),
            "effect": effect,
            "metric": metric.name,
            "unit": metric.step_unit,
            "std": round(std.std, 6),
            "source": std.source,
            "assumptions": needed.assumptions,
        }
        print_json(values)
        return
    size = f"{effect:g} {metric.step_unit}".rstrip()
    typer.echo(
        f"{needed.seeds} seeds per network: a true difference of {size} of {metric.label} is then "
        f"detected in {percent(needed.reached)} of studies."
    )
    typer.echo(needed.assumptions)


def _pooled_std(folder: Path) -> tuple[PooledStd, MetricSpec]:
    """The standard deviation between seeds of a folder's finished runs, pooled over networks, and
    the metric of most of them."""
    from convnext_study.results.effects import pooled_rows, pooled_std
    from convnext_study.results.load import load_results
    from convnext_study.runs.records import unreadable_in

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder of a study")
    rows = [row for study in load_results(folder).studies for row in study.rows]
    warn_of_unreadable(unreadable_in(folder))
    std, comparable = pooled_std(rows, f"networks of {folder}"), pooled_rows(rows)
    if std is None:
        raise UserError(
            f"{folder}: no network has two finished seeds; train with --seeds 2 or more"
        )
    return std, comparable[0].metric
