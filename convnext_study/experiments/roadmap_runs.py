"""The runs of a road map, from the options of a command."""

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
MAX_SEEDS = 1000  # if given as a number; more have to be listed


def parse_seeds(text: str) -> tuple[int, ...]:
    """``3`` is the seeds 0, 1, 2; ``0,4,7`` are those, and ``4,`` is only 4. Raises UserError."""
    count = "," not in text
    try:
        numbers = tuple(int(part) for part in text.removesuffix(",").split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or (count and numbers[0] < 1):
        raise UserError(f"seeds: {text!r:.60}; use a number of seeds (3), or a list (0,4,7)")
    if max(numbers) >= 2**63 or (count and numbers[0] > MAX_SEEDS):
        raise UserError(f"seeds: {text:.40}; use at most {MAX_SEEDS:,}, each below 2^63")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"seeds: {text!r:.60} contains a seed twice")
    return tuple(range(numbers[0])) if count else numbers


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, without surrounding spaces and empty names."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def choose_variants(road: Roadmap, steps: str | None) -> tuple[Variant, ...]:
    """The rows named in ``steps`` (comma-separated), in the road's order; all if it is None.

    ``adopted`` means all adopted rows.
    """
    if steps is None:
        return road.variants()
    adopted = {variant.name for variant in road.variants() if variant.adopted}
    names = parse_names(steps)
    chosen = {road.variant(name).name for name in names if name != ADOPTED}
    chosen |= adopted if ADOPTED in names else set()
    if not chosen:
        raise UserError(f"steps: {steps!r} contains no step; use names such as gelu,layer_norm")
    return tuple(variant for variant in road.variants() if variant.name in chosen)


def default_recipe(road: Roadmap, data: str) -> str:
    """The data's short recipes for roads of small images, the published ones for ImageNet's."""
    if road.published:
        return "published"
    source = SOURCES.get(split_uri(data).scheme)
    return source.recipe if source else "small"


def default_folder(road: Roadmap, data: str) -> Path:
    """The default folder of a study."""
    return Path("runs") / f"{road.regime}-{name_data(data)}"


def name_data(data: str) -> str:
    """A short name of data for a folder's name: the scheme, the last part of a path unless the
    scheme alone identifies the images, and options."""
    scheme, path, options = split_uri(data)
    source = SOURCES.get(scheme)
    parts = [scheme]
    if source is None or source.needs_path:
        parts += [] if source and source.size else [PurePath(path).name]
    else:
        parts += [options if source.has_location else path]
    return re.sub("[^A-Za-z0-9]+", "-", "-".join(filter(None, parts))).strip("-")


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

    ``recipe`` is as in `recipe_for`; ``changes`` are recipe fields to set in every row. A road
    that is not published has its own image size by default. Raises UserError for data without
    class labels.
    """
    check_labels(data, OF_IMAGES)
    order = {variant.name: index for index, variant in enumerate(road.variants())}
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
    """The recipe of a row by `recipe_for`, with the road's image size if it is not published."""
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
