"""Commands that train: ``train STEP``, ``roadmap``."""

from __future__ import annotations

from typing import Annotated

import typer

from convnext_study.cli.options import Regime, StudyOptions, with_options
from convnext_study.roadmap import get_roadmap


def add_to(app: typer.Typer) -> None:
    """Register `train` and `roadmap` with the command line."""
    for command in (train, roadmap):
        app.command()(command)


@with_options
def train(
    step: Annotated[str, typer.Argument(help="A step's name, as `steps` lists them.")],
    options: StudyOptions,
    regime: Regime = "nano",
) -> None:
    """Train one step of a road map."""
    from convnext_study.cli.run_study import run_roadmap

    road = get_roadmap(regime)
    run_roadmap(road, [road.variant(step)], options)


@with_options
def roadmap(
    options: StudyOptions,
    regime: Regime = "nano",
    steps: Annotated[
        str | None, typer.Option(help="Only these rows, comma-separated. (default: all)")
    ] = None,
) -> None:
    """Train every row of a road map, and make its table and figure.

    Finished runs are kept and half-finished ones go on: the same command can be given again.
    """
    from convnext_study.cli.run_study import run_roadmap
    from convnext_study.experiments.roadmap_runs import choose_variants

    road = get_roadmap(regime)
    run_roadmap(road, choose_variants(road, steps), options)
