"""``train``, ``roadmap``, ``study``: train rows of a road map, or the runs of a Python file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convnext_study.cli.defaults import complete_study
from convnext_study.cli.inspect import StepName
from convnext_study.cli.options import (
    WHAT,
    StudyOptions,
    option,
    output_of,
    print_rich,
    print_tables,
    print_written,
    with_options,
)
from convnext_study.errors import UserError
from convnext_study.roadmap import DEFAULT_REGIME, get_roadmap

if TYPE_CHECKING:
    from convnext_study.experiments.context import Context
    from convnext_study.experiments.plan import RunCollection
    from convnext_study.experiments.study_file import StudyFile
    from convnext_study.roadmap import Roadmap, Variant
    from convnext_study.runs.records import Record, Run


@dataclass(frozen=True)
class FileOptions(StudyOptions):
    """Options that include those of studies from files."""

    networks: str = option(
        WHAT,
        "Networks to study, comma-separated, if the study accepts a choice: see its file. "
        "(default: the study's own)",
        "",
    )
    targets: list[str] | None = option(
        WHAT,
        "What to do with the networks, if the study accepts a choice: see its file. May be "
        "repeated. (default: the study's own)",
        None,
        "--target",
    )
    extra_steps: str = option(
        WHAT, "Steps to append to the road: grn, layer_scale, ..., or .py files with STEPS.", ""
    )
    match_macs: str | None = option(
        WHAT, "Set each width to bring MACs closest to a target: end, or a number."
    )
    permutations: int = option(
        WHAT,
        "Number of sampled orders of the steps, half of them reversed copies.",
        8,
        min=2,
        max=10_000,
    )
    players: Literal["step", "section"] = option(
        WHAT, "What an attribution divides the gain among.", "step"
    )
    any_commit: bool = option(WHAT, "Include runs from other commits in attributions.", False)


@with_options
def study(
    options: FileOptions,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]",
            help=(
                "A study of the package, such as pairs, or a Python file. (default: "
                "list the studies)"
            ),
            autocompletion=complete_study,
        ),
    ] = None,
) -> None:
    """Train the networks that a study requests, each once, and show its tables.

    Without a name, list the studies of the package. Networks already in the folder, from
    a road map or another study, are not trained again.
    """
    if file is None:
        _list_studies()
        return
    from convnext_study.cli.run_study import run_study
    from convnext_study.experiments.plan import RunCollection, identify_in
    from convnext_study.experiments.roadmap_runs import DEFAULT_DATA, default_folder, parse_seeds
    from convnext_study.experiments.study_file import (
        NETWORKS,
        TARGETS,
        deduplicate,
        find_study,
        load_study,
        make_context,
        with_metadata,
    )

    if options.permutations % 2:
        raise UserError(
            f"permutations: {options.permutations}; use an even number, because each order is "
            "paired with its reverse"
        )
    loaded = load_study(find_study(file))
    context = make_context(
        loaded,
        options.regime,
        options.extra_steps,
        data=options.data or loaded.data or DEFAULT_DATA,
        seeds=parse_seeds(options.seeds),
        recipe=options.recipe,
        changes=options.recipe_changes(),
        permutations=options.permutations,
        players=options.players,
        any_commit=options.any_commit,
        networks=loaded.networks(options.networks),
        targets=loaded.targets(options.targets or ()),
    )
    # For the report, which says how to reproduce these runs.
    choice = {NETWORKS: options.networks, TARGETS: options.targets}
    choice = {name: value for name, value in choice.items() if value}
    requested = [with_metadata(run, **choice) for run in loaded.runs(context)]
    if options.match_macs is not None:
        requested = _match_macs(requested, options.match_macs, context, options)
    folder = (
        options.out or loaded.folder(context.data) or default_folder(context.road, context.data)
    )
    requested = identify_in(folder, requested, options.machine())
    runs, done = deduplicate(requested, folder)
    print(
        f"{len(requested)} networks requested, {len(runs)} distinct, {done} trained already",
        file=output_of(options),
    )
    collection = RunCollection(tuple(runs), folder, options.wandb)
    exit_error: typer.Exit | None = None
    try:
        run_study(collection, options)
    except typer.Exit as error:
        exit_error = error
    if options.dry_run:
        return
    try:
        if options.match_macs is None:
            _show(loaded, collection, context)
        else:
            _show_matched(collection, requested)
    except UserError as error:
        if all(map(collection.is_done, collection.runs)):
            raise
        # The findings may need runs that are not done yet, so how the training ended counts.
        print(f"convnext-study: no findings yet: {error}", file=sys.stderr)
    if exit_error:
        raise exit_error


def _list_studies() -> None:
    """Print the package's studies, each with the first line of its file."""
    from convnext_study.experiments.study_file import named_studies
    from convnext_study.report.tables import Column, Table

    rows = [
        (
            name,
            (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0],
        )
        for name, path in named_studies().items()
    ]
    columns: list[Column[tuple[str, str]]] = [
        Column("study", "study", lambda row: row[0], "text"),
        Column("about", "what it trains", lambda row: row[1], "text"),
    ]
    print_tables(Table("studies", "", columns, rows))


def _match_macs(runs: list[Run], target: str, context: Context, options: StudyOptions) -> list[Run]:
    """The runs at equal MACs, counted at the network's input size."""
    from convnext_study.experiments.equal_macs import counter, match_macs, parse_target

    size, classes = _image(context, options)
    macs = counter(runs[0].recipe["image_size"] or size, classes)
    target_macs = parse_target(target, context.road, macs)
    return [match_macs(run, target_macs, macs) for run in runs]


def _image(context: Context, options: StudyOptions) -> tuple[int, int]:
    """The side of the data's images, and how many classes they have."""
    from convnext_study.experiments.data_identity import inspect_data, size_if_missing
    from convnext_study.experiments.plan import open_options

    if options.dry_run and (missing := size_if_missing(context.data)):
        return missing[0].image_size, missing[0].classes
    size = inspect_data(context.data, **open_options(options.machine())).size
    return size.image_size, size.classes


def _show(file: StudyFile, study: RunCollection, context: Context) -> None:
    """Print and write what the file reports about the folder's finished runs."""
    from convnext_study.cli.run_study import is_row
    from convnext_study.report.findings import StudyFigure, table_of, write_findings

    records = _finished(study)
    findings = file.report(records, context) if records else None
    several = findings if isinstance(findings, list | tuple) else [findings]
    parts = [part for part in several if part is not None]
    for part in parts:
        print()
        if (table := table_of(part)) is not None:
            print_tables(table)
        elif not isinstance(part, StudyFigure):
            print_rich(part)
    print_written(study.folder, lambda: write_findings(file.path.stem, parts, study.folder))
    sets = [run for run in study.runs if not is_row(run)]
    if sets and records and not parts:  # missing runs may be there with other settings
        for note in context.group_by_subset(records).excluded:
            print(note)


def _show_matched(study: RunCollection, requested: list[Run]) -> None:
    """Print the rows at equal MACs, with their widths, and write them in their own folder."""
    from convnext_study.cli.run_study import show_rows
    from convnext_study.experiments.equal_macs import KIND
    from convnext_study.experiments.study_file import select_records
    from convnext_study.results.summary import summarize

    rows = summarize(select_records(_finished(study), requested), requested)
    if any(row.value is not None for row in rows):
        target = requested[0].metadata[KIND]["target"]
        print_rich(f"At equal cost, {target:,} MACs; the labels give the widths.")
        show_rows(rows, study.folder, within=KIND)


def _finished(study: RunCollection) -> list[Record]:
    return [record for record in study.ledger() if record.result is not None]


@with_options
def train(
    step: StepName,
    options: StudyOptions,
) -> None:
    """Train one step of a road map."""
    road = get_roadmap(options.regime or DEFAULT_REGIME)
    _train(road, [road.variant(step)], options)


@with_options
def roadmap(
    options: StudyOptions,
    steps: Annotated[
        str | None,
        typer.Option(
            help=(
                "Train only these rows, comma-separated; adopted means those on the "
                "road. (default: all)"
            ),
            rich_help_panel=WHAT,
        ),
    ] = None,
) -> None:
    """Train every row of a road map, and make its table and figure.

    Run the same command again to resume: finished runs are kept, unfinished ones continue.
    """
    from convnext_study.experiments.roadmap_runs import choose_variants

    road = get_roadmap(options.regime or DEFAULT_REGIME)
    _train(road, choose_variants(road, steps), options)


def _train(road: Roadmap, variants: Sequence[Variant], options: StudyOptions) -> None:
    """Train rows of a road map, and show the results."""
    from convnext_study.cli.run_study import run_study
    from convnext_study.experiments.plan import RunCollection, identify_in
    from convnext_study.experiments.roadmap_runs import (
        DEFAULT_DATA,
        default_folder,
        parse_seeds,
        roadmap_runs,
    )

    data = options.data or DEFAULT_DATA
    runs = roadmap_runs(
        road,
        variants,
        data=data,
        seeds=parse_seeds(options.seeds),
        recipe=options.recipe,
        changes=options.recipe_changes(),
    )
    folder = options.out or default_folder(road, data)
    runs = identify_in(folder, runs, options.machine())
    run_study(RunCollection(tuple(runs), folder, options.wandb), options)
