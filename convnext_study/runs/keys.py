"""What makes two runs the same run: a digest of all that decides a result, and of nothing else.

Fields at their defaults are left out, so that a new field, with a default that keeps the old
behaviour, leaves every old run the run it was. Builders have short names, so that a module may
move; a user's file is its content, so that his folder may move too. Where a default or a fix
changes results, ``SEMANTICS`` is raised: old runs are then others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

SEMANTICS = 1


def digest_of(model: Mapping[str, Any], recipe: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a run's network, recipe and other plain values (data, seed, task).

    A recipe's name is only what it is called, and no part of it.
    """
    defaults = _MODEL_DEFAULTS.get(model["builder"], dict)()
    decides = {
        **rest,
        "semantics": SEMANTICS,
        "builder": model["builder"],
        "args": without_defaults(_without_places(model)["args"], defaults),
        "recipe": without_defaults(recipe, {**_recipe_defaults(), "name": recipe.get("name")}),
    }
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not at their default, as JSON has them."""
    plain, usual = json.loads(json.dumps(dict(values))), json.loads(json.dumps(dict(defaults)))
    return {
        name: value for name, value in plain.items() if name not in usual or value != usual[name]
    }


def _without_places(model: Mapping[str, Any]) -> dict[str, Any]:
    """A network, and those that it is made from, without the places where their files lie."""
    places = _PLACES.get(model["builder"], ())
    args = {name: value for name, value in model["args"].items() if name not in places}
    within = {
        name: _without_places(value)
        for name, value in args.items()
        if isinstance(value, Mapping) and _is_network(value)
    }
    return {"builder": model["builder"], "args": {**args, **within}}


def _is_network(values: Mapping[str, Any]) -> bool:
    named = isinstance(values.get("builder"), str) and isinstance(values.get("args"), Mapping)
    return named and len(values) == 2


@cache
def _recipe_defaults() -> dict[str, Any]:
    from convnext_study.recipes import Recipe

    fields = Recipe.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


@cache
def _roadmap_defaults() -> dict[str, Any]:
    from convnext_study.roadmap.spec import NetSpec

    return NetSpec().to_dict()


# Of builders whose arguments have defaults; a study's own are left out by the study.
_MODEL_DEFAULTS: dict[str, Callable[[], dict[str, Any]]] = {"roadmap": _roadmap_defaults}
# Arguments that say where to find what another one, a digest of its content, identifies.
_PLACES = {"file": ("file",)}
