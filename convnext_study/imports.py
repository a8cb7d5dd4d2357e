"""Import objects by address and from users' files, with one-line errors (no torch here)."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from types import ModuleType


def file_digest(path: Path, hint: str = "name a Python file") -> str:
    """The first 16 hex digits of a file's SHA-256. Raises UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {hint}") from None


def load_file(path: Path) -> ModuleType:
    """A Python file as a module. Raises UserError with the file and the line."""
    file_digest(path)
    name = f"convnext_study_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; its name must end in .py")
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
    """A function of a Python file, which is executed. Raises UserError, also if it is missing."""
    function = getattr(load_file(path), name, None)
    if not callable(function):
        raise UserError(f"{path}: has no function {name!r}; define it there")
    return function  # type: ignore[no-any-return]


def fault(error: BaseException, path: Path) -> str:
    """An error in a user's file, with its line number there."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    message = (str(error).splitlines() or ["no message"])[0]
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}: {message}"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study with its own networks provides to the rest of the package.

    Each value is an address in the study's package, ``module:name``, imported when it is used.

    Args:
        package: its full name.
        builders: of networks, by the names that runs use.
        tasks: by the names that runs use.
        models: the networks for timm: names and their `ModelEntry`.
        costs: a function that returns tables of the costs of its published networks.
        bench: a function that measures, for ``bench --parts``, and one that makes its table.
    """

    package: str
    builders: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    models: str | None = None
    costs: str | None = None
    bench: tuple[str, str] | None = None

    def load(self, address: str) -> Any:
        """The object at an address. Raises TaskError if there is none."""
        return resolve(f"{self.package}.{address}")


def studies() -> dict[str, Study]:
    """All studies of the package by name."""
    by_name: dict[str, Study] = resolve("convnext_study.studies:STUDIES")
    return by_name


def study_addresses(kind: Literal["builders", "tasks"]) -> dict[str, str]:
    """The full addresses of all studies' builders or tasks, by name."""
    return {
        name: f"{study.package}.{address}"
        for study in studies().values()
        for name, address in getattr(study, kind).items()
    }


class TaskError(UserError):
    """A task or builder that a run names cannot be used."""


def resolve(reference: str) -> Any:
    """The object at ``module:name``. Raises TaskError if there is none."""
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TaskError(f"{reference}: cannot be imported ({error}); use module:name") from error
