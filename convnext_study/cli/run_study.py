"""What every command that trains does: plan, train with a live view, then table and figure."""

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
from convnext_study.experiments.plan import Plan, RunCollection, plan, unfinished
from convnext_study.experiments.progress import live_table, plain_line, progress
from convnext_study.report.tables.formatting import plural
from convnext_study.runs.records import Run, unreadable_in

FIGURE = "convnext_study.report.figures.roadmap"  # whose matplotlib takes seconds to import

if TYPE_CHECKING:
    from pathlib import Path

    from convnext_study.launchers.graph import Outcome
    from convnext_study.results.rows import ResultRow


def run_study(study: RunCollection, options: StudyOptions) -> None:
    """Train what is not done, print the table, write the results; exit as it went.

    A dry run only prints what that would be; with SLURM the batch scripts too, alone on standard
    output.
    """
    if options.as_json and not options.dry_run:
        raise UserError("--json: is of an estimate; add --dry-run, or leave it out")
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
    study.note_places()
    outcomes: list[Outcome] = []
    if resources:
        # While the trainings run and this process only looks at them.
        threading.Thread(target=_import_figures, daemon=True).start()
        outcomes = _train(planned)
        for outcome in unfinished(outcomes, "submitted"):
            print(f"{outcome.run.id}: {outcome.reason}")
        if not options.wait:
            return
    _show(study)
    failed, stopped = unfinished(outcomes, "failed"), unfinished(outcomes, "stopped")
    busy = unfinished(outcomes, "busy")
    notes = [f"{one.run.id} failed: {one.reason}" for one in failed]
    notes += [f"{one.run.id} is busy: {one.reason}" for one in busy]
    notes += [f"warning: {text}" for text in _warnings(study)]
    notes += sorted({one.reason for one in outcomes if one.status == "done" and one.reason})
    for note in notes:
        print(f"convnext-study: {one_line(note)}", file=sys.stderr)
    warn_of_unreadable(unreadable_in(study.folder / "runs"))
    if failed:
        raise typer.Exit(EXIT_FAILED)
    if left := stopped + busy:
        line = f"{plural(len(left), 'run')} left; rerun the same command to resume"
        print(line, file=sys.stderr)
        raise typer.Exit(EXIT_STOPPED)


def _import_figures() -> None:
    import_module(FIGURE)
    import_module("matplotlib.backends.backend_agg")


def _train(planned: Plan) -> list[Outcome]:
    """A live table on a terminal, and a line per epoch for logs and pipes."""
    shown, study = console(), planned.study
    if not shown.is_terminal:
        return _train_plain(planned)
    from rich.live import Live

    with Live(console=shown, auto_refresh=False) as live:

        def on_poll() -> None:
            rows = progress(study.records(), study.runs)
            live.update(live_table(rows, planned.jobs, shown.height), refresh=True)

        on_poll()
        outcomes = planned.train(on_poll)
        on_poll()
    return outcomes


def _train_plain(planned: Plan) -> list[Outcome]:
    study = planned.study
    output = {record.run.id: len(record.epochs) for record in study.records()}
    began = time.monotonic()

    def on_poll() -> None:
        for record in study.records():
            for line in record.epochs[output.get(record.run.id, 0) :]:
                print(f"{time.monotonic() - began:7.1f}s  {plain_line(record.run, line)}")
            output[record.run.id] = len(record.epochs)
        sys.stdout.flush()

    return planned.train(on_poll)


def _warnings(study: RunCollection) -> list[str]:
    """What the runs warned of, each once."""
    events = [event for record in study.records() for event in record.events]
    return sorted(
        {str(one["text"]) for one in events if one.get("event") == "warning" and "text" in one}
    )


def _show(study: RunCollection) -> None:
    """The table on the screen; table and figure in the folder."""
    from convnext_study.results.summary import summarize

    requested = [run for run in study.runs if is_row(run)]
    if not requested:
        return
    # Of another road in the same folder other networks have the same names.
    studies = {run.study for run in requested}
    ledger = [one for one in study.ledger() if is_row(one.run) and one.run.study in studies]
    rows = summarize(ledger, requested)
    if not any(row.value is not None for row in rows):
        print("no row is finished yet: no table")
        return
    show_rows(rows, study.folder)


def show_rows(rows: Sequence[ResultRow], folder: Path, within: str = "") -> None:
    """Print the table of rows; write it and its figure in a study's folder, or one in that.

    The figure of rows that are in the folder already is not drawn again, which takes a second.
    """
    from convnext_study.report.tables.results import terminal_table, write_results
    from convnext_study.results.rows import study_title
    from convnext_study.runs.files import make_within

    def write() -> list[Path]:
        into = make_within(folder, within) if within else folder
        before = _content(into)
        tables = write_results(into, rows, study_title(rows).title)
        figures = [into / f"roadmap.{kind}" for kind in ("svg", "png")]
        if before is None or before != _content(into) or not all(one.exists() for one in figures):
            figures = import_module(FIGURE).draw(rows, into)
        return [*tables, *figures]

    print_tables(terminal_table(rows))
    print_written(folder, write)


def _content(folder: Path) -> bytes | None:
    """The table of rows as it is in a folder."""
    with contextlib.suppress(OSError):
        return (folder / "results.json").read_bytes()
    return None


def is_row(run: Run) -> bool:
    """Sets of steps, by the hundred, are no rows: their studies have tables of their own."""
    return not run.metadata.get("study_kind")
