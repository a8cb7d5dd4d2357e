"""Training recipes as data: by name, from a file, or for a road-map row."""

from __future__ import annotations

import tomllib
from pathlib import Path

from convnext_study.errors import did_you_mean
from convnext_study.recipes.presets import (
    CHEAP,
    CHOICES,
    CLASSIC,
    CLASSIC_SMALL,
    IMAGES_AT_A_TIME,
    MODERN,
    MODERN_B,
    MODERN_COMPOSED,
    MODERN_SMALL,
    PUBLISHED,
    RECIPES,
)
from convnext_study.recipes.recipe import Recipe, RecipeError, make_recipe

__all__ = [
    "CHEAP",
    "CHOICES",
    "CLASSIC",
    "CLASSIC_SMALL",
    "MODERN",
    "MODERN_B",
    "MODERN_COMPOSED",
    "MODERN_SMALL",
    "PUBLISHED",
    "RECIPES",
    "Recipe",
    "RecipeError",
    "get_recipe",
    "images_at_a_time",
    "make_recipe",
    "name_for",
    "recipe_for",
]


def get_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file with a recipe's fields.

    The file may start from a named recipe or another file: ``base = "modern"``. Raises RecipeError.
    """
    return _get(name, ())


def _get(name: str, derived: tuple[str, ...]) -> Recipe:
    """``derived`` are the files whose base, directly or not, this recipe is."""
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise RecipeError(
            f"recipe {name}: unknown{did_you_mean(name, list(RECIPES))}, or give a .toml file"
        )
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {name}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, or not text
        raise RecipeError(f"recipe {name}: not TOML ({error})") from None
    base = fields.pop("base", None)
    if base is not None and (not isinstance(base, str) or base in (*derived, name)):
        raise RecipeError(f"recipe {name}: base {base!r}: name a recipe, or another file")
    start = dict(_get(base, (*derived, name))) if base else {}
    return make_recipe({**start, "name": path.stem, **fields})


def name_for(published: str, choice: str) -> str:
    """The name or file of the recipe that `recipe_for` returns."""
    if choice == "published":
        return published
    return f"{published.partition('-')[0]}{CHOICES[choice]}" if choice in CHOICES else choice


def recipe_for(published: str, choice: str) -> Recipe:
    """The recipe of a road-map row.

    ``published`` is the name of the row's recipe in the paper; ``choice`` is one of `CHOICES`,
    which are variants of it, or one recipe for all rows, by name or file.
    """
    return get_recipe(name_for(published, choice))


def images_at_a_time(recipe: Recipe, requested: int | None = None) -> int | None:
    """The largest number of images that a process takes at a time: as requested or published."""
    return requested or IMAGES_AT_A_TIME.get(recipe.name.partition("[")[0])
