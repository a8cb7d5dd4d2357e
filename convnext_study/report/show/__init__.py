"""One screen per row of a road map: what the step changes, and what that costs.

Sixteen of them show how a ResNet becomes a ConvNeXt. rich is imported only when a screen is made.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from convnext_study.roadmap import Roadmap, Variant, get_roadmap

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.constrain import Constrain

# The first row is compared with nothing.
FIRST_ROW_PARTS = (("stem", "stages"), ("first", "block"))


def show(road: Roadmap, name: str, image_size: int | None = None) -> Group:
    """The screen of one row, for rich to print: at most 80 columns, readable without colour.

    Maps and MACs are for one square image with sides of ``image_size`` pixels, the road map's own
    by default. Raises StepError for an unknown step, ImageTooSmall for too small an image size.
    """
    from rich.console import Group

    from convnext_study.report.show.columns import compare_costs, tried_beside

    size = image_size or road.image_size
    variant = road.variant(name)
    before = road.variant(variant.parent) if variant.parent else None
    costs = compare_costs(road, before, variant, size)  # refuses an image that is too small
    parts: list[RenderableType] = [_title(road, before, variant)]
    parts += _networks(road, before, variant, size)
    if before is None or before.recipe != variant.recipe:
        parts.append(_recipes(road, before, variant))
    return Group(*parts, costs, *tried_beside(road, variant, size))


@functools.cache
def screen(regime: str, name: str) -> str | None:
    """`show` of a row as plain text; None for a row that is not on the road."""
    from rich.console import Console

    road = get_roadmap(regime)
    if name not in {variant.name for variant in road.variants()}:
        return None
    console = Console(
        width=80,
        color_system=None,
        force_terminal=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(show(road, name))
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())


def _title(road: Roadmap, before: Variant | None, variant: Variant) -> Constrain:
    from rich.constrain import Constrain
    from rich.text import Text

    from convnext_study.report.show.columns import WIDTH

    rows = [row.name for row in road.variants()]
    text = Text()
    text.append(f"{variant.label}\n", "bold")
    section = f", section {variant.step.section} of the paper" if variant.step else ""
    position = f"row {rows.index(variant.name) + 1} of {len(rows)} of road map {road.regime}"
    text.append(f"{variant.name}, {position}{section}\n\n", "dim")
    text.append(
        variant.step.rationale if variant.step else "Where the road starts, before its first step."
    )
    text.append(f"\n\n{_sets(before, variant)}" if before else "\n")
    return Constrain(text, WIDTH)


def _sets(before: Variant, variant: Variant) -> str:
    """The fields that the step sets, with old and new values, in one line."""
    sets = [
        f"{name} {getattr(before.spec, name)} → {getattr(variant.spec, name)}"
        for name in (variant.step.overrides if variant.step else ())
    ]
    if before.recipe != variant.recipe:
        sets.append(f"recipe {before.recipe} → {variant.recipe}")
    return f"Sets: {', '.join(sets)}\n"


def _networks(
    road: Roadmap, before: Variant | None, variant: Variant, size: int
) -> list[RenderableType]:
    from rich.text import Text

    from convnext_study.report.show.columns import beside, compare, legend, names
    from convnext_study.report.show.layers import TITLES, describe, parts_of

    new = describe(variant.spec, size, road.num_classes)
    if before is None:
        screen = [beside({TITLES[p]: new[p] for p in pair}) for pair in FIRST_ROW_PARTS]
        return [*screen, legend()]
    if before.spec == variant.spec:
        return [Text("The network is the same, layer by layer.\n")]
    old = describe(before.spec, size, road.num_classes)
    fields = variant.step.overrides if variant.step else ()
    screen = [compare(TITLES[part], old[part], new[part]) for part in parts_of(fields)]
    return [names(before.name, variant.name), *screen, legend()]


def _recipes(road: Roadmap, before: Variant | None, variant: Variant) -> RenderableType:
    """What a row's recipe changes from the one before; for the first row, from the defaults."""
    from convnext_study.recipes import Recipe, recipe_for
    from convnext_study.report.provenance import recipe_changes, setting_table
    from convnext_study.report.show.columns import on_screen

    choice = "published" if road.published else "composed"
    new = recipe_for(variant.recipe, choice).model_dump()
    fields = Recipe.model_fields.items()
    defaults = {name: None if field.is_required() else field.default for name, field in fields}
    old = recipe_for(before.recipe, choice).model_dump() if before else defaults
    rows = [(name, was, now) for name, now, was in recipe_changes(new, old)]
    headings = (f"before: {old['name']}" if before else "unless set", f"after: {new['name']}")
    return on_screen(setting_table("recipe", "", rows, headings).with_notes(""))
