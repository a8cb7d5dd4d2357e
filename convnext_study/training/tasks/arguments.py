"""A task's arguments, from the plain values of a record."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from convnext_study.errors import did_you_mean
from convnext_study.imports import TaskError
from convnext_study.runs.records import TaskRef

Args = TypeVar("Args", bound=BaseModel)


def parse(kind: type[Args], task: TaskRef) -> Args:
    """A task's arguments, checked. Raises TaskError, one line that names the one at fault."""
    try:
        return kind.model_validate(task.args)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = first["type"] != "extra_forbidden"
        hint = "" if known else did_you_mean(where, list(kind.model_fields))
        raise TaskError(f"task {task.name}: {where}: {first['msg'].lower()}{hint}") from None
