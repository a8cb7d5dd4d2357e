"""Commands that look at the road map: ``steps``, ``show``, ``cost``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from convnext_study.cli.options import ImageSize, Json, Regime, print_rich, print_tables
from convnext_study.roadmap import DEFAULT_REGIME, ROADMAPS, Roadmap, get_roadmap


def steps(regime: Regime = DEFAULT_REGIME, as_json: Json = False) -> None:
    """List the rows of a road map and what each one sets."""
    road = get_roadmap(regime)
    if as_json:
        typer.echo(json.dumps(_steps(road), indent=1, ensure_ascii=False))
        return
    from convnext_study.report.tables import Column, Table

    columns: list[Column[dict[str, Any]]] = [
        Column("step", "step", lambda row: row["step"], "text"),
        Column("label", "in the paper", lambda row: row["label"] + _tried(row), "text"),
        Column("section", "section", lambda row: row["section"], "text"),
        Column("overrides", "overrides", _sets, "text"),
    ]
    print_tables(Table("steps", f"{regime}: {road.title}", columns, _steps(road)))


def _tried(row: dict[str, Any]) -> str:
    return "" if row["adopted"] else "  (tried, not adopted)"


def _sets(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row["overrides"].items())


def _steps(road: Roadmap) -> list[dict[str, Any]]:
    return [
        {
            "step": variant.name,
            "label": variant.label,
            "section": variant.step.section if variant.step else "",
            "adopted": variant.adopted,
            "recipe": variant.recipe,
            "overrides": dict(variant.step.overrides) or {"recipe": variant.recipe}
            if variant.step
            else {"recipe": variant.recipe},
            "model": variant.model,
        }
        for variant in road.variants()
    ]


def show(
    step: Annotated[str, typer.Argument(help="A step's name, as `steps` lists them.")],
    regime: Regime = DEFAULT_REGIME,
    image_size: ImageSize = None,
) -> None:
    """Show what a step changes: its layers before and after, and what that costs."""
    from convnext_study.report.show import show as screen

    print_rich(screen(get_roadmap(regime), step, image_size))


def cost(
    regime: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(ROADMAPS)}; t and b together without.")
    ] = None,
    image_size: ImageSize = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Count in three further ways and compare.")
    ] = False,
    study: Annotated[
        str | None,
        typer.Option(help="Instead of a road map, a study's published networks, as in pruning."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count MACs, parameters and activations of every row, beside the paper's GFLOPs."""
    if study is not None:
        _cost_of_study(study, as_json)
        return
    from convnext_study import cost as counting

    regimes = [get_roadmap(regime).regime] if regime else ["t", "b"]
    rows = counting.table(regimes, image_size, verify=verify)
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from convnext_study.report.tables.cost import cost_tables

    print_tables(*cost_tables(rows))


def _cost_of_study(study: str, as_json: bool) -> None:
    from convnext_study.errors import UserError, did_you_mean
    from convnext_study.imports import studies

    known = {name: one for name, one in studies().items() if one.costs}
    if study not in known:
        near = did_you_mean(study, list(known))
        raise UserError(f"study {study!r}: has no networks to count{near}")
    tables = known[study].load(str(known[study].costs))()
    if as_json:
        rows = [row for table in tables for row in table.records()]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    print_tables(*tables)
