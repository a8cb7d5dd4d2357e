"""``study FILE``: train what a Python file asks for, and show what it has to say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import StudyOptions, print_rich, print_tables, with_study_options
from convnext_study.errors import BadRequest

if TYPE_CHECKING:
    from convnext_study.launching.context import Context
    from convnext_study.launching.studies import StudyFile
    from convnext_study.launching.study import Study
    from convnext_study.records import Record, Run

BY = ("step", "section")


def add_to(app: typer.Typer) -> None:
    app.command()(study)


@with_study_options
def study(
    file: Annotated[Path, typer.Argument(help="A Python file, such as ablations/pairs.py.")],
    options: StudyOptions,
    regime: Annotated[
        str | None, typer.Option(help="Which road map: t, b or nano. (default: the file's)")
    ] = None,
    further: Annotated[
        str,
        typer.Option(
            "--with", help="Steps after the end: grn, layer_scale, ..., or .py files with STEPS."
        ),
    ] = "",
    orders: Annotated[
        int, typer.Option(min=2, help="Orders of the steps to sample, half of them reverses.")
    ] = 8,
    by: Annotated[
        str, typer.Option(help="What to share the gain among: step or section.")
    ] = "step",
    match_macs: Annotated[
        str | None,
        typer.Option(help="Set each width so that MACs come nearest to: end, or a number."),
    ] = None,
    any_commit: Annotated[
        bool, typer.Option("--any-commit", help="Count runs made at other commits as well.")
    ] = False,
) -> None:
    """Train the networks that a study's file asks for, each once, and show its tables.

    Networks that the folder has already, from a road map or another study, are not trained again.
    """
    from convnext_study.cli.study import run_study
    from convnext_study.launching.runs import default_folder, parse_seeds
    from convnext_study.launching.studies import load_study, make_context, once
    from convnext_study.launching.study import Study

    if by not in BY:
        raise BadRequest(f"by: {by!r}; use one of {', '.join(BY)}")
    if orders % 2:
        raise BadRequest(f"orders: {orders}; use an even number, each order comes with its reverse")
    loaded = load_study(file)
    context = make_context(
        loaded,
        regime,
        further,
        data=options.data,
        seeds=parse_seeds(options.seeds),
        recipe=options.recipe,
        changes=options.recipe_changes(),
        orders=orders,
        by=by,
        any_commit=any_commit,
    )
    asked = loaded.runs(context)
    if match_macs is not None:
        asked = _matched(asked, match_macs, context, options)
    folder = (
        options.out or loaded.folder(options.data) or default_folder(context.road, options.data)
    )
    runs, done = once(asked, folder)
    print(f"{len(asked)} networks asked, {len(runs)} distinct, {done} trained already")
    whole = Study(tuple(runs), folder, options.wandb)
    ending: typer.Exit | None = None
    try:
        run_study(whole, options)
    except typer.Exit as stopped:
        ending = stopped
    if match_macs is None:
        _show(loaded, whole, context)
    else:
        _show_matched(whole, asked)
    if ending:
        raise ending


def _matched(runs: list[Run], target: str, context: Context, options: StudyOptions) -> list[Run]:
    """The runs at equal MACs, counted at the size that the network will see."""
    from convnext_study.launching.equal_macs import counter, match_macs, parse_target
    from convnext_study.training.data import open_data

    data = open_data(options.data, download=options.download)
    macs = counter(runs[0].recipe["image_size"] or data.size, data.num_classes)
    return match_macs(runs, parse_target(target, context.road, macs), macs)


def _show(file: StudyFile, whole: Study, context: Context) -> None:
    """What the file says of the folder's finished runs: on the screen, and in files beside them."""
    from convnext_study.results.attribution import Effects
    from convnext_study.results.report.attribution import effects_table, write_effects

    said = file.report(_finished(whole), context)
    shown = [one for one in (said if isinstance(said, list | tuple) else [said]) if one is not None]
    for one in shown:
        if isinstance(one, Effects):
            print_tables(effects_table(one))
            files = write_effects(one, whole.folder)
            print("written: " + ", ".join(str(path) for path in files))
        else:
            print_rich(one)
    if not shown and hasattr(file.module, "report"):  # what it lacks may be there, made otherwise
        for note in context.group_by_subset(_finished(whole)).excluded:
            print(note)


def _show_matched(whole: Study, asked: list[Run]) -> None:
    """The rows at equal MACs, with the widths that make them so, in a folder of their own."""
    from convnext_study.launching.equal_macs import KIND
    from convnext_study.launching.studies import pick
    from convnext_study.results.meta import describe
    from convnext_study.results.report.figures.roadmap import draw
    from convnext_study.results.report.tables.results import terminal_table, write_results
    from convnext_study.results.summary import summarize

    rows = summarize(pick(_finished(whole), asked), asked)
    if not any(row.top1 is not None for row in rows):
        return
    folder = whole.folder / KIND
    folder.mkdir(exist_ok=True)
    files = [*write_results(folder, rows, describe(rows).title), *draw(rows, folder)]
    target = asked[0].facts[KIND]["target"]
    print_rich(f"At equal cost, {target:,} MACs: widths as the labels say.")
    print_tables(terminal_table(rows))
    print("written: " + ", ".join(str(path) for path in files))


def _finished(whole: Study) -> list[Record]:
    return [record for record in whole.ledger() if record.result is not None]
