"""What the specs of all families share: plain values in, plain values out (no torch here)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sized
from typing import Any, ClassVar, TypeAlias

from convnext_study.roadmap.spec import SpecError
from convnext_study.runs.spec import Spec

Widths: TypeAlias = tuple[tuple[int, ...], ...]
Blocks: TypeAlias = tuple[tuple[tuple[Any, ...], ...], ...]  # of stages, blocks, layers
Read: TypeAlias = int | tuple[int, ...]  # how many channels of a stream, or which
_MAY_BE_ZERO = {"stages", "inner", "last", "transitions"}  # lists of channels begin with channel 0


class Fields(Spec):
    """What the frozen dataclasses of all families share."""

    family: ClassVar[str]

    @classmethod
    def kind(cls) -> str:
        """As errors have it."""
        return f"a {cls.family}"

    def __post_init__(self) -> None:
        """Tuples for JSON's lists, and a check of every number."""
        self._freeze()
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if _smallest(value) < 0 or (_smallest(value) < 1 and field.name not in _MAY_BE_ZERO):
                raise SpecError(f"{field.name}: {value!r}; use whole numbers of at least 1")
        self.check()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the family's name first; fields at their default are left out."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        values = super().to_dict()
        changed = {
            name: one for name, one in values.items() if getattr(self, name) != defaults[name]
        }
        return {"family": self.family, **changed}


def count(read: Read) -> int:
    """How many channels are read."""
    return read if isinstance(read, int) else len(read)


def indices(read: Read) -> tuple[int, ...]:
    """Which channels are read."""
    return tuple(range(read)) if isinstance(read, int) else read


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


def _smallest(value: Any) -> int:
    if isinstance(value, tuple):
        return min(map(_smallest, value), default=1)
    return value if type(value) is int else 1
