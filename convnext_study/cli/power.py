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
    """Say how many seeds each network needs, so that a difference can be told from noise."""
    from convnext_study.results.statistics import paper_deviation, seeds_needed

    deviation = paper_deviation() if study is None else _measured(study)
    found = seeds_needed(effect, deviation, power=power, alpha=alpha, paired=paired, tests=steps)
    if as_json:
        about = {
            "seeds": found.seeds,
            "reached": round(found.reached, 6),
            "effect": effect,
            "deviation": round(deviation.points, 6),
            "source": deviation.source,
            "assumptions": found.assumptions,
        }
        typer.echo(json.dumps(about, indent=1))
        return
    typer.echo(
        f"{found.seeds} seeds for each network: a true difference of {effect:g} points is then "
        f"seen in {100 * found.reached:.0f} % of studies."
    )
    typer.echo(found.assumptions)


def _measured(folder: Path) -> Deviation:
    """The deviation between seeds of a folder's finished runs, pooled over networks."""
    from convnext_study.records import RecordError, scan
    from convnext_study.results.setups import setup
    from convnext_study.results.statistics import pooled_deviation

    if not folder.is_dir():
        raise BadRequest(f"{folder}: no such folder; name the folder of a study")
    rows: dict[str, dict[int, float]] = {}
    images = [1]
    unreadable: list[RecordError] = []
    for record in scan(folder, unreadable):
        if record.result is not None:
            rows.setdefault(setup(record.run), {})[record.run.seed] = record.result.top1
            images.append(record.result.val_images)
    warn_of_unreadable(unreadable)
    several = [list(row.values()) for row in rows.values() if len(row) > 1]
    source = f"{len(several)} networks of {folder}"
    found = pooled_deviation(several, source, resolution=100 / max(images))
    if found is None:
        raise BadRequest(
            f"{folder}: no network has two finished seeds; train with --seeds 2 or more"
        )
    return found
