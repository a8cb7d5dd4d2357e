"""SVG as text: elements whose attributes and contents are always escaped, and linear scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Value = str | float | int | None


def tag(name: str, *children: Markup | str, **attributes: Value) -> Markup:
    """An element. ``_`` in an attribute's name is ``-``, at its end nothing; None is left out."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            text = number(value) if isinstance(value, float) else str(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{' '.join(parts)}>{inside}</{name}>" if inside else f"<{' '.join(parts)}/>")  # noqa: S704


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel, without a needless zero."""
    return f"{value + 0.0:.1f}".removesuffix(".0")


def polyline(points: Sequence[tuple[float, float]], **attributes: Value) -> Markup:
    """A path through points, in pixels."""
    if not points:
        return Markup("")
    steps = " ".join(f"{number(x)} {number(y)}" for x, y in points)
    return tag("path", d=f"M{steps}", **attributes)


@dataclass(frozen=True)
class Scale:
    """Maps values from ``low`` to ``high`` to pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within the limits, at most ``most`` of them."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * part for part in (1, 2, 5, 10, 20) if span / (unit * part) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]
