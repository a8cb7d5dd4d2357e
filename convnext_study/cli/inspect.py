"""Commands that inspect the road map: ``steps``, ``show``, ``cost``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from convnext_study.cli.defaults import complete_regime, complete_step
from convnext_study.cli.options import ImageSize, Json, Regime, print_json, print_rich, print_tables
from convnext_study.errors import UserError, did_you_mean
from convnext_study.imports import studies
from convnext_study.roadmap import DEFAULT_REGIME, ROADMAPS, get_roadmap

if TYPE_CHECKING:
    from convnext_study.report.tables import Table


def steps(regime: Regime = DEFAULT_REGIME, as_json: Json = False) -> None:
    """List the rows of a road map and what each one sets."""
    from convnext_study.report.tables import Column, Table

    road = get_roadmap(regime)
    rows: list[dict[str, Any]] = [
        {
            "step": variant.name,
            "label": variant.label,
            "section": variant.step.section if variant.step else "",
            "adopted": variant.adopted,
            "recipe": variant.recipe,
            "overrides": dict(variant.step.overrides if variant.step else {})
            or {"recipe": variant.recipe},
            "model": variant.model,
        }
        for variant in road.variants()
    ]
    if as_json:
        print_json({"regime": regime, "steps": rows})
        return

    def label(row: dict[str, Any]) -> str:
        return f"{row['label']}{'' if row['adopted'] else '  (tried, not adopted)'}"

    def overrides(row: dict[str, Any]) -> str:
        return ", ".join(f"{name}={value}" for name, value in row["overrides"].items())

    columns: list[Column[dict[str, Any]]] = [
        Column("step", "step", lambda row: row["step"], "text"),
        Column("label", "in the paper", label, "text"),
        Column("section", "section", lambda row: row["section"], "text"),
        Column("overrides", "overrides", overrides, "text"),
    ]
    print_tables(Table("steps", f"{regime}: {road.title}", columns, rows))


StepName = Annotated[
    str,
    typer.Argument(help="Name of a step, as listed by `steps`.", autocompletion=complete_step),
]


def show(
    step: StepName,
    regime: Regime = DEFAULT_REGIME,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Show what a step changes: its layers before and after, and their cost."""
    from convnext_study.report.show import show as screen

    road = get_roadmap(regime)
    if not as_json:
        print_rich(screen(road, step, image_size))
        return
    from convnext_study.cost import closed_form

    size, row = image_size or road.image_size, road.variant(step)
    before = road.variant(row.parent) if row.parent else None
    print_json(
        {
            "regime": regime,
            "step": row.name,
            "label": row.label,
            "parent": row.parent,
            "recipe": row.recipe,
            "overrides": dict(row.step.overrides) if row.step else {},
            "network": row.spec.to_dict(),
            "image_size": size,
            "cost": vars(closed_form(row.spec, size, road.num_classes)),
            "parent_cost": before and vars(closed_form(before.spec, size, road.num_classes)),
        }
    )


def cost(
    regime: Annotated[
        str,
        typer.Option(
            help=f"One or more of {', '.join(ROADMAPS)}, comma-separated: t,b.",
            autocompletion=complete_regime,
        ),
    ] = DEFAULT_REGIME,
    image_size: ImageSize = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also count in three other ways, and compare.")
    ] = False,
    study: Annotated[
        str | None,
        typer.Option(
            help="Count a study's published networks instead of a road map, for example pruning."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count MACs, parameters and activations of every row, next to the paper's GFLOPs."""
    if study is not None:
        tables = _tables_of(study)
        rows = [row for table in tables for row in table.records()]
    else:
        from convnext_study import cost as counting
        from convnext_study.experiments.roadmap_runs import parse_names
        from convnext_study.report.tables.cost import cost_tables

        rows = counting.table(parse_names(regime), image_size, verify=verify)
        tables = cost_tables(rows)
    if as_json:
        print_json({"networks": rows})
    else:
        print_tables(*tables)


def _tables_of(study: str) -> list[Table[Any]]:
    available = {name: item for name, item in studies().items() if item.costs}
    if study not in available:
        near = did_you_mean(study, list(available))
        raise UserError(f"study {study!r}: has no networks to count{near}")
    tables: list[Table[Any]] = available[study].load(str(available[study].costs))()
    return tables
