"""Which runs a request for a road map means."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from convnext_study.build import ROADMAP_BUILDER
from convnext_study.errors import BadRequest
from convnext_study.records import ModelRef, Run
from convnext_study.roadmap import Point, Roadmap
from convnext_study.training.recipe import recipe_for


def parse_seeds(text: str) -> tuple[int, ...]:
    """``3`` is the seeds 0, 1, 2; ``0,4,7`` are those. Raises BadRequest."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or (len(numbers) == 1 and numbers[0] < 1):
        raise BadRequest(f"seeds: {text!r}; use how many (3), or which (0,4,7)")
    if len(set(numbers)) < len(numbers):
        raise BadRequest(f"seeds: {text!r} names a seed twice")
    return tuple(range(numbers[0])) if len(numbers) == 1 else numbers


def choose_points(road: Roadmap, steps: str | None) -> tuple[Point, ...]:
    """The rows named in ``steps`` (comma-separated), in the road's order; all without it."""
    if not steps:
        return road.points()
    wanted = {road.point(name.strip()).name for name in steps.split(",") if name.strip()}
    if not wanted:
        raise BadRequest(f"steps: {steps!r} names no step; use names such as gelu,layer_norm")
    return tuple(point for point in road.points() if point.name in wanted)


def default_recipe(road: Roadmap) -> str:
    """Small images get the short recipes, ImageNet's size the published ones."""
    return "published" if road.published else "small"


def default_folder(road: Roadmap, data: str) -> Path:
    """Where a study goes when no folder is named."""
    return Path("runs") / f"{road.regime}-{data.partition(':')[0]}"


def roadmap_runs(
    road: Roadmap,
    points: Iterable[Point],
    *,
    data: str,
    seeds: Iterable[int],
    recipe: str | None = None,
    changes: dict[str, Any] | None = None,
) -> list[Run]:
    """One run for each row and seed, all rows of the first seed before those of the next.

    ``recipe`` is as in `recipe_for`; ``changes`` are recipe fields to set in every row.
    """
    order = {point.name: place for place, point in enumerate(road.points())}
    changes = dict(changes or {})
    if data.startswith("folder:") and not road.published:
        changes["image_size"] = changes.get("image_size") or road.image_size
    points = list(points)
    return [
        Run(
            study=f"roadmap-{road.regime}",
            name=point.name,
            model=ModelRef(builder=ROADMAP_BUILDER, args=point.spec.to_dict()),
            recipe=recipe_for(point.recipe, recipe or default_recipe(road))
            .changed(**changes)
            .model_dump(mode="json"),
            data=data,
            seed=seed,
            facts=_facts(road, point, order[point.name]),
        )
        for seed in seeds
        for point in points
    ]


def _facts(road: Roadmap, point: Point, order: int) -> dict[str, Any]:
    return {
        "regime": road.regime,
        "step": point.name,
        "label": point.label,
        "order": order,
        "adopted": point.adopted,
        "parent": point.parent,
        "section": point.step.section if point.step else "2.1",
        "published": road.published,
    }
