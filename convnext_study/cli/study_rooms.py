"""What studies offer to commands that are not their own."""

from __future__ import annotations

import importlib.util
from typing import Any

from convnext_study.imports import resolve


def rooms_with(file: str) -> list[str]:
    """The studies whose room has such a file: ``costs``, ``bench``."""
    import pkgutil

    from convnext_study import studies

    rooms = [room.name for room in pkgutil.iter_modules(studies.__path__)]
    return [
        room
        for room in rooms
        if importlib.util.find_spec(f"convnext_study.studies.{room}.{file}") is not None
    ]


def offered(study: str, name: str) -> Any:
    """What a study offers as ``file:name``, such as ``bench:measure``."""
    return resolve(f"convnext_study.studies.{study}.{name}")
