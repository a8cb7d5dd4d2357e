"""A network as data: frozen, and equal to its JSON form in a record (no torch here)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Self

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError


class Spec:
    """To and from plain values, for the frozen dataclasses that studies make their networks of.

    Values are numbers, texts, and tuples of them, which JSON has as lists.
    """

    @classmethod
    def kind(cls) -> str:
        """What is made of it, as errors have it: ``an anytime network``."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Tuples for JSON's lists, then the check."""
        self._freeze()
        self.check()

    def check(self) -> None:
        """Raises SpecError, one line that names the field, for what no network can have."""

    def replace(self, **changes: Any) -> Self:
        """The same network with some fields changed. Raises SpecError for an unknown field."""
        return type(self).from_dict({**self._values(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field, so that a record can be read without our defaults."""
        return self._values()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; fields left out keep their defaults."""
        cls.check_names(values)
        return cls(**values)

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """Raises SpecError for a field that there is not."""
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in names:
            if name not in known:
                raise SpecError(f"{name}: no such field of {cls.kind()}{did_you_mean(name, known)}")

    def _freeze(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if not isinstance(field.default, str):  # an error shows what was given for a text
                object.__setattr__(self, field.name, _tuples(getattr(self, field.name)))

    def _values(self) -> dict[str, Any]:
        return {
            field.name: _lists(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, tuple) else value
