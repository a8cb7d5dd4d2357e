"""What every command that trains does: plan, train with a live view, then table and figure."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from convnext_study.cli.options import StudyOptions, console, print_rich
from convnext_study.errors import EXIT_FAILED, EXIT_STOPPED
from convnext_study.launching.runs import default_folder, parse_seeds, roadmap_runs
from convnext_study.launching.study import Study, train_all, unfinished
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
        changes={
            "epochs": options.epochs,
            "global_batch": options.batch,
            "image_size": options.image_size,
        },
    )
    folder = options.out or default_folder(road, options.data)
    run_study(Study(tuple(runs), folder, options.wandb), options)


def run_study(study: Study, options: StudyOptions) -> None:
    """Train what is not done, print the table, write the results; exit as it went."""
    todo = [run for run in study.runs if not study.is_done(run)]
    print(f"{study.folder}: {len(study.runs)} runs, {len(study.runs) - len(todo)} done already")
    outcomes: list[Outcome] = []
    if todo:
        plan = _plan(study, options, len(todo))
        print(
            f"{options.data}; {', '.join(sorted({run.recipe['name'] for run in todo}))}; "
            f"{plan.jobs} side by side, {plan.machine.threads} thread(s) each, "
            f"on {plan.machine.device}",
            flush=True,
        )
        outcomes = _train(study, plan)
    _show(study)
    for outcome in unfinished(outcomes, "failed"):
        print(f"convnext-study: {outcome.run.id} failed: {outcome.reason}", file=sys.stderr)
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


def _plan(study: Study, options: StudyOptions, todo: int) -> Plan:
    from convnext_study.launching.machine import make_plan
    from convnext_study.training.data import open_data

    data = open_data(options.data, download=options.download)  # bad data fails before any training
    size = max(run.recipe["image_size"] or data.size for run in study.runs)
    return make_plan(
        image_size=size,
        runs=todo,
        device=options.device,
        jobs=options.jobs,
        threads=options.threads,
        workers=options.workers,
        download=options.download,
    )


def _train(study: Study, plan: Plan) -> list[Outcome]:
    shown = console()
    return _train_live(study, plan, shown) if shown.is_terminal else _train_plain(study, plan)


def _train_live(study: Study, plan: Plan, shown: Console) -> list[Outcome]:
    from rich.live import Live

    from convnext_study.results.progress import live_table, progress

    with Live(console=shown, auto_refresh=False) as live:

        def tick() -> None:
            rows = progress(study.records(), study.runs)
            live.update(live_table(rows, plan.jobs), refresh=True)

        tick()
        outcomes = train_all(study, plan, tick)
        tick()
    return outcomes


def _train_plain(study: Study, plan: Plan) -> list[Outcome]:
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

    return train_all(study, plan, tick)


def _show(study: Study) -> None:
    """The table on the screen; table and figure in the folder."""
    from convnext_study.results.figure import draw
    from convnext_study.results.summary import noise_note, summarize, write_results
    from convnext_study.results.table import result_table

    rows = summarize(study.ledger(), study.runs)
    if not any(row.top1 is not None for row in rows):
        print("no run is finished yet: no table")
        return
    files = [*write_results(study.folder, rows), *draw(rows, study.folder)]
    if study.wandb != "off":
        from convnext_study.results.wandb_mirror import mirror_study

        mirror_study(study.folder, rows, study.wandb)
    print_rich(result_table(rows, noise_note(rows)))
    print("written: " + ", ".join(str(file) for file in files))
