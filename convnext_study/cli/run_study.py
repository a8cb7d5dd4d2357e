"""Shared by the commands that train: plan, train with a live view, then table and figure."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from convnext_study.cli.dry_run import print_estimate
from convnext_study.cli.options import (
    StudyOptions,
    console,
    output_of,
    print_tables,
    print_written,
    warn_of_unreadable,
)
from convnext_study.errors import EXIT_FAILED, EXIT_STOPPED, UserError, one_line
from convnext_study.experiments.plan import Plan, RunCollection, plan, with_status
from convnext_study.experiments.progress import live_table, plain_line, progress
from convnext_study.report.tables.formatting import plural
from convnext_study.runs.records import Run, unreadable_in

FIGURE = "convnext_study.report.figures.roadmap"  # whose matplotlib takes seconds to import

if TYPE_CHECKING:
    from pathlib import Path

    from convnext_study.launchers.graph import Outcome
    from convnext_study.results.rows import ResultRow


def run_study(study: RunCollection, options: StudyOptions) -> None:
    """Train what is not done, print the table, write the results; the exit code says how it ended.

    A dry run only prints the plan; with SLURM also the batch scripts, which are then alone on
    standard output.
    """
    if options.as_json and not options.dry_run:
        raise UserError("--json: prints an estimate; add --dry-run, or remove it")
    planned = plan(study, options.machine())
    launcher, resources = planned.launcher, planned.resources
    output = output_of(options)
    done = len(study.runs) - len(planned.todo)
    print(f"{study.folder}: {len(study.runs)} runs, {done} done already", file=output)
    if resources:
        print(planned.describe(), file=output, flush=True)
    if options.dry_run:
        gpus = launcher.world_size(resources.devices if resources else ())
        print_estimate(study, options, gpus, resources)
        if launcher.submits and not options.as_json:
            planned.train(lambda: None)
        return
    study.record_data_paths()
    outcomes: list[Outcome] = []
    if resources:
        # In parallel with the trainings, which this process only watches.
        threading.Thread(target=_import_figures, daemon=True).start()
        outcomes = _train(planned)
        for outcome in with_status(outcomes, "submitted"):
            print(f"{outcome.run.id}: {outcome.reason}")
        if not options.wait:
            return
    _show(study)
    failed, stopped = with_status(outcomes, "failed"), with_status(outcomes, "stopped")
    busy = with_status(outcomes, "busy")
    notes = [f"{end.run.id} failed: {end.reason}" for end in failed]
    notes += [f"{end.run.id} is busy: {end.reason}" for end in busy]
    notes += [f"warning: {text}" for text in _warnings(study)]
    notes += sorted({end.reason for end in outcomes if end.status == "done" and end.reason})
    for note in notes:
        print(f"convnext-study: {one_line(note)}", file=sys.stderr)
    warn_of_unreadable(unreadable_in(study.folder / "runs"))
    if failed:
        raise typer.Exit(EXIT_FAILED)
    if remaining := stopped + busy:
        line = f"{plural(len(remaining), 'run')} left; rerun the same command to resume"
        print(line, file=sys.stderr)
        raise typer.Exit(EXIT_STOPPED)


def _import_figures() -> None:
    import_module(FIGURE)
    import_module("matplotlib.backends.backend_agg")


def _train(planned: Plan) -> list[Outcome]:
    """Train with a live table on a terminal, or a line per epoch for logs and pipes."""
    terminal, study = console(), planned.study
    if not terminal.is_terminal:
        return _train_plain(planned)
    from rich.live import Live

    with Live(console=terminal, auto_refresh=False) as live:

        def on_poll() -> None:
            rows = progress(study.records(), study.runs)
            live.update(live_table(rows, planned.jobs, terminal.height), refresh=True)

        on_poll()
        outcomes = planned.train(on_poll)
        on_poll()
    return outcomes


def _train_plain(planned: Plan) -> list[Outcome]:
    study = planned.study
    printed = {record.run.id: len(record.epochs) for record in study.records()}
    start = time.monotonic()

    def on_poll() -> None:
        for record in study.records():
            for line in record.epochs[printed.get(record.run.id, 0) :]:
                print(f"{time.monotonic() - start:7.1f}s  {plain_line(record.run, line)}")
            printed[record.run.id] = len(record.epochs)
        sys.stdout.flush()

    return planned.train(on_poll)


def _warnings(study: RunCollection) -> list[str]:
    """The runs' distinct warnings."""
    events = [event for record in study.records() for event in record.events]
    return sorted({str(e["text"]) for e in events if e.get("event") == "warning" and "text" in e})


def _show(study: RunCollection) -> None:
    """Print the table; write table and figure in the folder."""
    from convnext_study.results.summary import summarize

    requested = [run for run in study.runs if is_row(run)]
    if not requested:
        return
    # Another road in the same folder has other networks with the same names.
    studies = {run.study for run in requested}
    ledger = [record for record in study.ledger() if is_row(record.run)]
    rows = summarize([record for record in ledger if record.run.study in studies], requested)
    if not any(row.value is not None for row in rows):
        print("no row is finished yet, so there is no table")
        return
    show_rows(rows, study.folder)


def show_rows(rows: Sequence[ResultRow], folder: Path, within: str = "") -> None:
    """Print the table of rows; write it and its figure in a study's folder or a subfolder.

    The figure is not drawn again if the rows are unchanged, since that takes a second.
    """
    from convnext_study.report.tables.results import terminal_table, write_results
    from convnext_study.results.rows import study_title
    from convnext_study.runs.files import make_within

    def write() -> list[Path]:
        out = make_within(folder, within) if within else folder
        previous = _content(out)
        tables = write_results(out, rows, study_title(rows).title)
        figures = [out / f"roadmap.{kind}" for kind in ("svg", "png")]
        drawn = all(path.exists() for path in figures)
        if previous is None or previous != _content(out) or not drawn:
            figures = import_module(FIGURE).draw(rows, out)
        return [*tables, *figures]

    print_tables(terminal_table(rows))
    print_written(folder, write)


def _content(folder: Path) -> bytes | None:
    """The table of rows in a folder."""
    with contextlib.suppress(OSError):
        return (folder / "results.json").read_bytes()
    return None


def is_row(run: Run) -> bool:
    """Whether a run is a row of a table. Sets of steps are not: their studies have own tables."""
    return not run.metadata.get("study_kind")
