"""How a network is trained, as data: a recipe by name, by file, or of a road-map row."""

from __future__ import annotations

import tomllib
from pathlib import Path

from convnext_study.errors import did_you_mean
from convnext_study.recipes.presets import (
    CHOICES,
    CLASSIC,
    CLASSIC_SMALL,
    MODERN,
    MODERN_COMPOSED,
    MODERN_SMALL,
    RECIPES,
)
from convnext_study.recipes.recipe import Recipe, RecipeError, make_recipe

__all__ = [
    "CHOICES",
    "CLASSIC",
    "CLASSIC_SMALL",
    "MODERN",
    "MODERN_COMPOSED",
    "MODERN_SMALL",
    "RECIPES",
    "Recipe",
    "RecipeError",
    "get_recipe",
    "make_recipe",
    "recipe_for",
]


def get_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file with a recipe's fields.

    The file may start from a named recipe or another file: ``base = "modern"``. Raises RecipeError.
    """
    return _get(name, ())


def _get(name: str, asked: tuple[str, ...]) -> Recipe:
    """``asked`` are the files that start from this one."""
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise RecipeError(
            f"recipe {name}: unknown{did_you_mean(name, list(RECIPES))}, or a .toml file"
        )
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {name}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not TOML, or no text
        raise RecipeError(f"recipe {name}: not TOML ({error})") from None
    base = fields.pop("base", None)
    if base is not None and (not isinstance(base, str) or base in (*asked, name)):
        raise RecipeError(f"recipe {name}: base {base!r}: name a recipe, or another file")
    start = dict(_get(base, (*asked, name))) if base else {}
    return make_recipe({**start, "name": path.stem, **fields})


def recipe_for(published: str, choice: str) -> Recipe:
    """The recipe of a road-map row.

    ``published`` is the name of the row's own, which it has in the paper; ``choice`` one of
    `CHOICES`, which go with it, or one recipe for every row, by name or file.
    """
    return get_recipe(f"{published}{CHOICES[choice]}" if choice in CHOICES else choice)
