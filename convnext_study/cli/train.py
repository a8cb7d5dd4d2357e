"""Commands that train a road map's rows: ``train STEP``, ``roadmap``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.inspect import StepName
from convnext_study.cli.options import WHAT, StudyOptions, with_options
from convnext_study.roadmap import DEFAULT_REGIME, get_roadmap

if TYPE_CHECKING:
    from convnext_study.roadmap import Roadmap, Variant


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
            help="Only these rows, comma-separated; adopted: those on the road. (default: all)",
            rich_help_panel=WHAT,
        ),
    ] = None,
) -> None:
    """Train every row of a road map, and make its table and figure.

    Finished runs are kept and half-finished ones go on: the same command can be given again.
    """
    from convnext_study.experiments.roadmap_runs import choose_variants

    road = get_roadmap(options.regime or DEFAULT_REGIME)
    _train(road, choose_variants(road, steps), options)


def _train(road: Roadmap, variants: Sequence[Variant], options: StudyOptions) -> None:
    """Train rows of a road map, and show them."""
    from convnext_study.cli.run_study import run_study
    from convnext_study.experiments.collection import RunCollection
    from convnext_study.experiments.machine import identify_in
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
