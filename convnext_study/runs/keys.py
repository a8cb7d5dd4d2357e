"""The key of a run: a digest of everything that decides its result, and of nothing else.

Fields at their defaults are left out, so that a new field, with a default that keeps the old
behaviour, does not change the keys of old runs. Builders have short names, so that a module may
move; a user's file is identified by its content, so that it may move too. If a default or a fix
changes results, ``SEMANTICS`` is increased, which changes all keys.
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

    A recipe's name is not part of it.
    """
    defaults = _MODEL_DEFAULTS.get(model["builder"], dict)()
    identity = {
        **rest,
        "semantics": SEMANTICS,
        "builder": model["builder"],
        "args": without_defaults(_without_paths(model)["args"], defaults),
        "recipe": without_defaults(recipe, {**_recipe_defaults(), "name": recipe.get("name")}),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from their defaults, as they are after a round trip through JSON."""
    plain, usual = json.loads(json.dumps(dict(values))), json.loads(json.dumps(dict(defaults)))
    return {
        name: value for name, value in plain.items() if name not in usual or value != usual[name]
    }


def _without_paths(model: Mapping[str, Any]) -> dict[str, Any]:
    """A network, and those that it is made from, without the paths of their files."""
    path_args = _PATH_ARGS.get(model["builder"], ())
    args = {name: value for name, value in model["args"].items() if name not in path_args}
    networks = {
        name: _without_paths(value)
        for name, value in args.items()
        if isinstance(value, Mapping) and _is_network(value)
    }
    return {"builder": model["builder"], "args": {**args, **networks}}


def _is_network(values: Mapping[str, Any]) -> bool:
    has_fields = isinstance(values.get("builder"), str) and isinstance(values.get("args"), Mapping)
    return has_fields and len(values) == 2


@cache
def _recipe_defaults() -> dict[str, Any]:
    from convnext_study.recipes import Recipe

    fields = Recipe.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


@cache
def _roadmap_defaults() -> dict[str, Any]:
    from convnext_study.roadmap.spec import NetSpec

    return NetSpec().to_dict()


# Builders whose arguments have defaults; a study leaves out its own defaults itself.
_MODEL_DEFAULTS: dict[str, Callable[[], dict[str, Any]]] = {"roadmap": _roadmap_defaults}
# Arguments that are paths; another argument, a digest of the content, identifies the file.
_PATH_ARGS = {"file": ("file",)}
