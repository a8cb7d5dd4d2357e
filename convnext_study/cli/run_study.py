"""What every command that trains does: plan, train with a live view, then table and figure."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from convnext_study.cli.options import (
    StudyOptions,
    console,
    print_tables,
    print_written,
    warn_of_unreadable,
)
from convnext_study.cli.place import (
    choose_resources_for,
    cluster_of,
    describe,
    get_launcher,
    opening,
)
from convnext_study.errors import EXIT_FAILED, EXIT_STOPPED, one_line
from convnext_study.experiments.collection import RunCollection, train_all, unfinished
from convnext_study.experiments.data_identity import identify
from convnext_study.experiments.roadmap_runs import default_folder, parse_seeds, roadmap_runs
from convnext_study.experiments.study_file import recorded
from convnext_study.report.tables.formatting import plural
from convnext_study.roadmap import Roadmap, Variant
from convnext_study.runs.records import Run, unreadable_in

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from convnext_study.launchers import Launcher
    from convnext_study.launchers.graph import Outcome
    from convnext_study.launchers.resources import Resources


def run_roadmap(road: Roadmap, variants: Sequence[Variant], options: StudyOptions) -> None:
    """Train rows of a road map, and show them."""
    runs = roadmap_runs(
        road,
        variants,
        data=options.data,
        seeds=parse_seeds(options.seeds),
        recipe=options.recipe,
        changes=options.recipe_changes(),
    )
    folder = options.out or default_folder(road, options.data)
    runs = identify_in(folder, runs, options)
    run_study(RunCollection(tuple(runs), folder, options.wandb), options)


def identify_in(folder: Path, runs: Sequence[Run], options: StudyOptions) -> list[Run]:
    """The runs with what their data is; in a dry run, as far as that can be known.

    Raises UserError, before anything is printed or written, for data that cannot be used.
    """
    return identify(
        runs,
        recorded(folder).values(),
        required=not options.dry_run,
        **opening(options),
    )


def run_study(study: RunCollection, options: StudyOptions) -> None:
    """Train what is not done, print the table, write the results; exit as it went.

    A dry run only tells what that would be.
    """
    if options.dry_run:
        from convnext_study.cli.dry_run import dry_run

        dry_run(study, options)
        return
    todo = [run for run in study.runs if not study.is_done(run)]
    done = len(study.runs) - len(todo)
    print(f"{study.folder}: {len(study.runs)} runs, {done} done already")
    study.note_places()
    outcomes: list[Outcome] = []
    cluster = cluster_of(options)
    launcher = get_launcher(options, cluster)
    if todo:
        plan = choose_resources_for(todo, options, cluster)
        print(describe(todo, options, plan), flush=True)
        outcomes = _train(study, plan, launcher)
        for outcome in unfinished(outcomes, "submitted"):
            print(f"{outcome.run.id}: {outcome.reason}")
        if options.launcher == "slurm" and not options.wait:
            return
    _show(study)
    for outcome in unfinished(outcomes, "failed"):
        reason = one_line(outcome.reason)
        print(f"convnext-study: {outcome.run.id} failed: {reason}", file=sys.stderr)
    # What another command has finished meanwhile is none of these.
    busy = [one for one in unfinished(outcomes, "busy") if not study.is_done(one.run)]
    for outcome in busy:
        print(f"convnext-study: {outcome.run.id} is busy: {outcome.reason}", file=sys.stderr)
    for text in _warnings(study):
        print(f"convnext-study: warning: {one_line(text)}", file=sys.stderr)
    warn_of_unreadable(unreadable_in(study.folder / "runs"))
    for note in sorted({o.reason for o in outcomes if o.status == "done" and o.reason}):
        print(f"convnext-study: {one_line(note)}", file=sys.stderr)
    if unfinished(outcomes, "failed"):
        raise typer.Exit(EXIT_FAILED)
    stopped = unfinished(outcomes, "stopped")
    if stopped or busy:
        print(
            f"{plural(len(stopped + busy), 'run')} left; rerun the same command to resume",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_STOPPED)


def _train(study: RunCollection, resources: Resources, launcher: Launcher) -> list[Outcome]:
    shown = console()
    if shown.is_terminal:
        return _train_live(study, resources, launcher, shown)
    return _train_plain(study, resources, launcher)


def _train_live(
    study: RunCollection, resources: Resources, launcher: Launcher, shown: Console
) -> list[Outcome]:
    from rich.live import Live

    from convnext_study.cli.progress import live_table, progress

    with Live(console=shown, auto_refresh=False) as live:

        def on_poll() -> None:
            rows = progress(study.records(), study.runs)
            live.update(live_table(rows, resources.jobs, shown.height), refresh=True)

        on_poll()
        outcomes = train_all(study, resources, on_poll, launcher)
        on_poll()
    return outcomes


def _train_plain(study: RunCollection, resources: Resources, launcher: Launcher) -> list[Outcome]:
    """A line per epoch, for logs and pipes."""
    from convnext_study.cli.progress import plain_line

    output = {record.run.id: len(record.epochs) for record in study.records()}
    began = time.monotonic()

    def on_poll() -> None:
        for record in study.records():
            for line in record.epochs[output.get(record.run.id, 0) :]:
                print(f"{time.monotonic() - began:7.1f}s  {plain_line(record.run, line)}")
            output[record.run.id] = len(record.epochs)
        sys.stdout.flush()

    return train_all(study, resources, on_poll, launcher)


def _warnings(study: RunCollection) -> list[str]:
    """What the runs warned of, each once."""
    return sorted(
        {
            str(event["text"])
            for record in study.records()
            for event in record.events
            if event.get("event") == "warning" and "text" in event
        }
    )


def _show(study: RunCollection) -> None:
    """The table on the screen; table and figure in the folder."""
    from convnext_study.report.figures.roadmap import draw
    from convnext_study.report.tables.results import terminal_table, write_results
    from convnext_study.results.rows import study_title
    from convnext_study.results.summary import summarize

    requested = [run for run in study.runs if is_row(run)]
    if not requested:
        return
    rows = summarize([one for one in study.ledger() if is_row(one.run)], requested)
    if not any(row.value is not None for row in rows):
        print("no row is finished yet: no table")
        return
    print_tables(terminal_table(rows))
    title = study_title(rows).title
    print_written(
        study.folder,
        lambda: [*write_results(study.folder, rows, title), *draw(rows, study.folder)],
    )
    if study.wandb != "off":
        from convnext_study.report.write import mirror_study

        mirror_study(study.folder, rows, study.wandb)


def is_row(run: Run) -> bool:
    """Sets of steps, by the hundred, are no rows: their studies have tables of their own."""
    return not run.metadata.get("study_kind")
