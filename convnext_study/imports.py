"""Python files and names that a user gives, imported; every failure is one line (no torch here)."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256. Raises UserError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a Python file") from None


def load_file(path: Path) -> ModuleType:
    """The module that a Python file makes. Raises UserError, naming the file and the line."""
    file_digest(path)
    name = f"convnext_study_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for themselves there
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}: {fault(error, path)}") from error
    return module


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """A function of a Python file, which is run. Raises UserError, also where it has no such."""
    function = getattr(load_file(path), name, None)
    if not callable(function):
        raise UserError(f"{path}: has no function {name!r}; define it there")
    return function  # type: ignore[no-any-return]


def fault(error: BaseException, path: Path) -> str:
    """What went wrong in a user's file, and in which line of it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    what = (str(error).splitlines() or ["no message"])[0]
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {what}"


def of_study(name: str, table: str) -> dict[str, Any]:
    """The ``table``, a ``module:NAME`` of a study's room, of the study that a name begins with;
    empty where there is no such study."""
    study = name.partition("-")[0]
    room = f"convnext_study.studies.{study}"
    if not study.isidentifier() or importlib.util.find_spec(room) is None:
        return {}
    return dict(resolve(f"{room}.{table}"))


class TaskError(UserError):
    """A task or builder that a run names cannot be used."""


def resolve(reference: str) -> Any:
    """The object that ``module:name`` names. Raises TaskError where there is none."""
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TaskError(f"{reference}: cannot be imported ({error}); use module:name") from error
