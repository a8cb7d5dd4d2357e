"""Which runs a request for a road map means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from convnext_study.data.sources import OF_IMAGES, SOURCES, check_labels, split_uri
from convnext_study.errors import UserError
from convnext_study.models.builders import ROADMAP_BUILDER
from convnext_study.recipes import Recipe, recipe_for
from convnext_study.results.subset_results import RECIPE
from convnext_study.results.summary import MAY_DIFFER
from convnext_study.roadmap import Roadmap, Variant
from convnext_study.runs.records import ModelRef, Run

DEFAULT_DATA = "clutter"
ADOPTED = "adopted"
MOST_SEEDS = 1000  # by their number; more of them are named


def parse_seeds(text: str) -> tuple[int, ...]:
    """``3`` is the seeds 0, 1, 2; ``0,4,7`` are those, and ``4,`` is 4 alone. Raises UserError."""
    count = "," not in text
    try:
        numbers = tuple(int(part) for part in text.removesuffix(",").split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or (count and numbers[0] < 1):
        raise UserError(f"seeds: {text!r:.60}; use how many (3), or which (0,4,7)")
    if max(numbers) >= 2**63 or (count and numbers[0] > MOST_SEEDS):
        raise UserError(f"seeds: {text:.40}; use at most {MOST_SEEDS:,}, each below 2^63")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"seeds: {text!r:.60} names a seed twice")
    return tuple(range(numbers[0])) if count else numbers


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, without the spaces about them and without empty ones."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def choose_variants(road: Roadmap, steps: str | None) -> tuple[Variant, ...]:
    """The rows named in ``steps`` (comma-separated), in the road's order; all without it.

    ``adopted`` stands for all rows that were adopted.
    """
    if steps is None:
        return road.variants()
    adopted = {variant.name for variant in road.variants() if variant.adopted}
    named = parse_names(steps)
    wanted = {road.variant(name).name for name in named if name != ADOPTED}
    wanted |= adopted if ADOPTED in named else set()
    if not wanted:
        raise UserError(f"steps: {steps!r} names no step; use names such as gelu,layer_norm")
    return tuple(variant for variant in road.variants() if variant.name in wanted)


def default_recipe(road: Roadmap, data: str) -> str:
    """Small images get the short recipes that fit the data, ImageNet's size the published ones."""
    if road.published:
        return "published"
    source = SOURCES.get(split_uri(data).scheme)
    return source.recipe if source else "small"


def default_folder(road: Roadmap, data: str) -> Path:
    """Where a study goes when no folder is named."""
    return Path("runs") / f"{road.regime}-{name_data(data)}"


def name_data(data: str) -> str:
    """Data in a few letters for a folder's name: of a path only the last part, and none where the
    kind alone says which images they are; what else is asked of the data is in it."""
    scheme, path, options = split_uri(data)
    source = SOURCES.get(scheme)
    given = [scheme]
    if source is None or source.needs_path:
        given += [] if source and source.size else [PurePath(path).name]
    else:
        given += [options if source.has_location else path]
    return re.sub("[^A-Za-z0-9]+", "-", "-".join(filter(None, given))).strip("-")


def roadmap_runs(
    road: Roadmap,
    variants: Iterable[Variant],
    *,
    data: str,
    seeds: Iterable[int],
    recipe: str | None = None,
    changes: dict[str, Any] | None = None,
) -> list[Run]:
    """One run for each row and seed, all rows of the first seed before those of the next.

    ``recipe`` is as in `recipe_for`; ``changes`` are recipe fields to set in every row. A road of
    ours has images of its own size where nothing else is asked for. Raises UserError for data
    whose images have no class.
    """
    check_labels(data, OF_IMAGES)
    order = {variant.name: place for place, variant in enumerate(road.variants())}
    variants, choice = list(variants), default_recipe(road, data) if recipe is None else recipe
    return [
        Run(
            study=f"roadmap-{road.regime}",
            name=variant.name,
            model=ModelRef(builder=ROADMAP_BUILDER, args=variant.spec.to_dict()),
            recipe=row_recipe(road, variant.recipe, choice)
            .replace(**(changes or {}))
            .model_dump(mode="json"),
            data=data,
            seed=seed,
            metadata=_metadata(road, variant, order[variant.name]),
        )
        for seed in seeds
        for variant in variants
    ]


def row_recipe(road: Roadmap, own: str, choice: str) -> Recipe:
    """The recipe of a row as `recipe_for` has it, a road of ours with images of its own size."""
    recipe = recipe_for(own, choice)
    if road.published or recipe.image_size is not None:
        return recipe
    return recipe.model_copy(update={"image_size": road.image_size})


def _metadata(road: Roadmap, variant: Variant, order: int) -> dict[str, Any]:
    sets_recipe = variant.step is not None and variant.step.recipe is not None
    return {
        "regime": road.regime,
        "step": variant.name,
        "label": variant.label,
        "order": order,
        "adopted": variant.adopted,
        "parent": variant.parent,
        "section": variant.step.section if variant.step else "2.1",
        "published": road.published,
        RECIPE: variant.recipe,
        **({MAY_DIFFER: ["recipe"]} if sets_recipe else {}),
    }
