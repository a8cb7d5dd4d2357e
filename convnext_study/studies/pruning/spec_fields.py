"""What the specs of all families share: plain values in, plain values out (no torch here)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sized
from typing import Any, ClassVar, Self, TypeAlias

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError

Widths: TypeAlias = tuple[tuple[int, ...], ...]
Blocks: TypeAlias = tuple[tuple[tuple[Any, ...], ...], ...]  # of stages, blocks, layers
Read: TypeAlias = int | tuple[int, ...]  # how many channels of a stream, or which
_MAY_BE_ZERO = {"stages", "inner", "last", "transitions"}  # lists of channels begin with channel 0


class Fields:
    """To and from plain values, for the frozen dataclasses below."""

    family: ClassVar[str]

    def __post_init__(self) -> None:
        """Tuples for JSON's lists, and a check of every number."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _tuples(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if _smallest(value) < 0 or (_smallest(value) < 1 and field.name not in _MAY_BE_ZERO):
                raise SpecError(f"{field.name}: {value!r}; use whole numbers of at least 1")
        self.check()

    def check(self) -> None:
        """Raises SpecError for what no network of the family can have."""

    def replace(self, **changes: Any) -> Self:
        """The same network with some fields changed. Raises SpecError for an unknown field."""
        values = self.to_dict()
        check_names(values.pop("family"), type(self), changes)
        return type(self)(**{**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the family's name first; fields at their default are left out."""
        values = {"family": self.family}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                values[field.name] = _lists(value)
        return values


def count(read: Read) -> int:
    """How many channels are read."""
    return read if isinstance(read, int) else len(read)


def indices(read: Read) -> tuple[int, ...]:
    """Which channels are read."""
    return tuple(range(read)) if isinstance(read, int) else read


def check_names(family: str, kind: Any, names: Iterable[str]) -> None:
    """Raises SpecError for a field that a family's specs do not have."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in names:
        if name not in known:
            raise SpecError(f"{name}: no such field of a {family}{did_you_mean(name, known)}")


def same_length(stages: Sized, widths: Sized) -> None:
    """Raises SpecError unless there is one width for each stage."""
    if len(stages) != len(widths):
        raise SpecError(f"stages: {len(stages)}; this network has {len(widths)}")


def blocks_of(stages: Blocks, lengths: tuple[int, ...]) -> None:
    """Raises SpecError unless every block has so many numbers, none of them nothing."""
    for block in (block for stage in stages for block in stage):
        if not isinstance(block, tuple) or len(block) not in lengths:
            raise SpecError(
                f"inner: {block!r}; a block has {' or '.join(map(str, lengths))} numbers"
            )
        if any(count(width) < 1 for width in block):
            raise SpecError(f"inner: {block!r}; use whole numbers of at least 1")


def some_channels(**reads: Read) -> None:
    """Raises SpecError, naming the field, where nothing is read."""
    for name, read in reads.items():
        if count(read) < 1:
            raise SpecError(f"{name}: {read!r}; use whole numbers of at least 1")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, tuple) else value


def _smallest(value: Any) -> int:
    if isinstance(value, tuple):
        return min(map(_smallest, value), default=1)
    return value if type(value) is int else 1
