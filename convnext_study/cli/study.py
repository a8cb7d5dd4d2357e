"""What every command that trains does: plan, train with a live view, then table and figure."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from convnext_study.cli.options import StudyOptions, console, print_tables, warn_of_unreadable
from convnext_study.cli.place import describe, plan_for, site_of, where_for
from convnext_study.errors import EXIT_FAILED, EXIT_STOPPED
from convnext_study.launching.runs import default_folder, parse_seeds, roadmap_runs
from convnext_study.launching.study import (
    Study,
    Where,
    train_all,
    unfinished,
)
from convnext_study.records import Run, unreadable_in
from convnext_study.roadmap import Point, Roadmap

if TYPE_CHECKING:
    from rich.console import Console

    from convnext_study.launching.local import Outcome
    from convnext_study.launching.machine import Plan


def run_roadmap(road: Roadmap, points: Sequence[Point], options: StudyOptions) -> None:
    """Train rows of a road map, and show them."""
    runs = roadmap_runs(
        road,
        points,
        data=options.data,
        seeds=parse_seeds(options.seeds),
        recipe=options.recipe,
        changes=options.recipe_changes(),
    )
    folder = options.out or default_folder(road, options.data)
    run_study(Study(tuple(runs), folder, options.wandb), options)


def run_study(study: Study, options: StudyOptions) -> None:
    """Train what is not done, print the table, write the results; exit as it went."""
    todo = [run for run in study.runs if not study.is_done(run)]
    # A dry run's script must be all of the standard output.
    told = sys.stderr if options.dry_run else sys.stdout
    done = len(study.runs) - len(todo)
    print(f"{study.folder}: {len(study.runs)} runs, {done} done already", file=told)
    outcomes: list[Outcome] = []
    profile = site_of(options)
    where = where_for(options, profile)
    if todo:
        plan = plan_for(todo, options, profile)
        print(describe(todo, options, plan), file=told, flush=True)
        outcomes = _train(study, plan, where)
        for outcome in unfinished(outcomes, "submitted"):
            print(f"{outcome.run.id}: {outcome.reason}")
        if options.on == "slurm" and (options.dry_run or not options.wait):
            return
    _show(study)
    for outcome in unfinished(outcomes, "failed"):
        print(f"convnext-study: {outcome.run.id} failed: {outcome.reason}", file=sys.stderr)
    for text in _warnings(study):
        print(f"convnext-study: warning: {text}", file=sys.stderr)
    warn_of_unreadable(unreadable_in(study.folder / "runs"))
    for note in sorted({o.reason for o in outcomes if o.status == "done" and o.reason}):
        print(f"convnext-study: {note}", file=sys.stderr)
    if unfinished(outcomes, "failed"):
        raise typer.Exit(EXIT_FAILED)
    if stopped := unfinished(outcomes, "stopped"):
        print(
            f"stopped with {len(stopped)} runs to go; the same command goes on where it was",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_STOPPED)


def _train(study: Study, plan: Plan, where: Where) -> list[Outcome]:
    shown = console()
    if shown.is_terminal:
        return _train_live(study, plan, where, shown)
    return _train_plain(study, plan, where)


def _train_live(study: Study, plan: Plan, where: Where, shown: Console) -> list[Outcome]:
    from rich.live import Live

    from convnext_study.results.progress import live_table, progress

    with Live(console=shown, auto_refresh=False) as live:

        def tick() -> None:
            rows = progress(study.records(), study.runs)
            live.update(live_table(rows, plan.jobs, shown.height), refresh=True)

        tick()
        outcomes = train_all(study, plan, tick, where)
        tick()
    return outcomes


def _train_plain(study: Study, plan: Plan, where: Where) -> list[Outcome]:
    """A line an epoch, for logs and pipes."""
    from convnext_study.results.progress import plain_line

    told = {record.run.id: len(record.epochs) for record in study.records()}
    began = time.monotonic()

    def tick() -> None:
        for record in study.records():
            for line in record.epochs[told.get(record.run.id, 0) :]:
                print(f"{time.monotonic() - began:7.1f}s  {plain_line(record.run, line)}")
            told[record.run.id] = len(record.epochs)
        sys.stdout.flush()

    return train_all(study, plan, tick, where)


def _warnings(study: Study) -> list[str]:
    """What the runs warned of, each once."""
    return sorted(
        {
            str(event["text"])
            for record in study.records()
            for event in record.events
            if event.get("event") == "warning" and "text" in event
        }
    )


def _show(study: Study) -> None:
    """The table on the screen; table and figure in the folder."""
    from convnext_study.results.meta import describe
    from convnext_study.results.report.figures.roadmap import draw
    from convnext_study.results.report.tables.results import terminal_table, write_results
    from convnext_study.results.summary import summarize

    asked = [run for run in study.runs if _is_row(run)]
    if not asked:
        return
    rows = summarize([one for one in study.ledger() if _is_row(one.run)], asked)
    if not any(row.top1 is not None for row in rows):
        print("no run is finished yet: no table")
        return
    files = [*write_results(study.folder, rows, describe(rows).title), *draw(rows, study.folder)]
    if study.wandb != "off":
        from convnext_study.results.wandb_mirror import mirror_study

        mirror_study(study.folder, rows, study.wandb)
    print_tables(terminal_table(rows))
    print("written: " + ", ".join(str(file) for file in files))


def _is_row(run: Run) -> bool:
    """Sets of steps, by the hundred, are no rows: their studies have tables of their own."""
    return not run.facts.get("study_kind")
