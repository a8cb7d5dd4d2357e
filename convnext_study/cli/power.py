"""``power``: how many seeds it takes to see a difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import Json, finite, print_json, warn_of_unreadable
from convnext_study.errors import UserError

if TYPE_CHECKING:
    from convnext_study.results.metric_spec import MetricSpec
    from convnext_study.results.statistics.intervals import PooledStd


def power(
    effect: Annotated[
        float,
        typer.Option(
            callback=finite,
            help="The difference to see, in the metric's unit; points for percent.",
        ),
    ],
    study: Annotated[
        Path | None,
        typer.Option(help="Folder with measured seeds. (default: the paper's Table 10)"),
    ] = None,
    power: Annotated[
        float, typer.Option(callback=finite, help="How often it is to be seen.")
    ] = 0.8,
    alpha: Annotated[
        float, typer.Option(callback=finite, help="The share of false alarms to accept.")
    ] = 0.05,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many steps are tested together (Holm).")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Say how many seeds each network needs, so that a difference is significant."""
    from convnext_study.report.tables.formatting import percent
    from convnext_study.results.paper import PAPER_METRIC, paper_std
    from convnext_study.results.statistics.power import seeds_needed

    std, metric = (paper_std(), PAPER_METRIC) if study is None else _pooled_std(study)
    found = seeds_needed(
        effect,
        std,
        power=power,
        alpha=alpha,
        tests=steps,
        unit=metric.step_unit,
    )
    if as_json:
        about = {
            "seeds": found.seeds,
            "reached": round(found.reached, 6),
            "effect": effect,
            "metric": metric.name,
            "unit": metric.step_unit,
            "std": round(std.std, 6),
            "source": std.source,
            "assumptions": found.assumptions,
        }
        print_json(about)
        return
    what = f"{effect:g} {metric.step_unit}".rstrip()
    typer.echo(
        f"{found.seeds} seeds for each network: a true difference of {what} of {metric.label} is "
        f"then seen in {percent(found.reached)} of studies."
    )
    typer.echo(found.assumptions)


def _pooled_std(folder: Path) -> tuple[PooledStd, MetricSpec]:
    """The standard deviation between seeds of a folder's finished runs, pooled over networks, and
    the metric that most of them have."""
    from convnext_study.results.effects import pooled_rows, pooled_std
    from convnext_study.results.load import load_results
    from convnext_study.runs.records import unreadable_in

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder of a study")
    rows = [row for study in load_results(folder).studies for row in study.rows]
    warn_of_unreadable(unreadable_in(folder))
    found, comparable = pooled_std(rows, f"networks of {folder}"), pooled_rows(rows)
    if found is None:
        raise UserError(
            f"{folder}: no network has two finished seeds; train with --seeds 2 or more"
        )
    return found, comparable[0].metric
