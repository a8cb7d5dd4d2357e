"""``power``: how many seeds it takes to see a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import Json, warn_of_unreadable
from convnext_study.errors import BadRequest

if TYPE_CHECKING:
    from convnext_study.results.statistics import Deviation


def add_to(app: typer.Typer) -> None:
    app.command()(power)


def power(
    effect: Annotated[float, typer.Option(help="The difference to see, in points of top-1.")],
    study: Annotated[
        Path | None,
        typer.Option(help="Folder with measured seeds. (default: the paper's Table 10)"),
    ] = None,
    power: Annotated[float, typer.Option(help="How often it is to be seen.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="The share of false alarms to accept.")] = 0.05,
    steps: Annotated[
        int, typer.Option(min=1, help="How many steps are tested together (Holm).")
    ] = 1,
    paired: Annotated[
        bool, typer.Option("--paired", help="A paired test on shared seeds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say how many seeds each network needs, so that a difference is significant."""
    from convnext_study.results.report.tables.formatting import percent
    from convnext_study.results.statistics import paper_deviation, seeds_needed

    deviation = paper_deviation() if study is None else _measured(study)
    found = seeds_needed(effect, deviation, power=power, alpha=alpha, paired=paired, tests=steps)
    if as_json:
        about = {
            "seeds": found.seeds,
            "reached": round(found.reached, 6),
            "effect": effect,
            "std": round(deviation.points, 6),
            "source": deviation.source,
            "assumptions": found.assumptions,
        }
        typer.echo(json.dumps(about, indent=1))
        return
    typer.echo(
        f"{found.seeds} seeds for each network: a true difference of {effect:g} points is then "
        f"seen in {percent(found.reached)} of studies."
    )
    typer.echo(found.assumptions)


def _measured(folder: Path) -> Deviation:
    """The deviation between seeds of a folder's finished runs, pooled over networks."""
    from convnext_study.records import unreadable_in
    from convnext_study.results.noise import pooled_std
    from convnext_study.results.report.gather import gather

    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; name the folder of a study")
    rows = [row for study in gather(folder).studies for row in study.rows]
    warn_of_unreadable(unreadable_in(folder))
    found = pooled_std(rows, f"networks of {folder}")
    if found is None:
        raise BadRequest(
            f"{folder}: no network has two finished seeds; train with --seeds 2 or more"
        )
    return found
