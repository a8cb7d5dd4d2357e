"""How a study's metric is called and written: label, unit, direction, decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from convnext_study.runs.metrics import Metric

_PERCENT = "%"
_DIGITS = 4  # shown of a value that is no percentage


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric without its value; by default one of which nothing is known.

    ``name`` is its key in records; ``decimals`` are those in which its values are written.
    """

    name: str = ""
    label: str = "value"
    unit: str = ""
    higher_is_better: bool = True
    decimals: int = 2

    @property
    def sign(self) -> int:
        """What turns a difference into a gain, which is above 0 for the better."""
        return 1 if self.higher_is_better else -1

    @property
    def heading(self) -> str:
        """Of a column: ``top-1 %``; an arrow says that lower is better."""
        return f"{self.label} {self.unit}".strip() + self._arrow

    @property
    def axis(self) -> str:
        """Of an axis: ``top-1, %``."""
        return ", ".join(filter(None, (self.label, self.unit))) + self._arrow

    @property
    def title(self) -> str:
        """The label as the first word of a line; names such as mIoU stay as they are."""
        first = self.label.partition(" ")[0].rstrip(",")
        return self.label if first != first.lower() else self.label[:1].upper() + self.label[1:]

    @property
    def step_unit(self) -> str:
        """The unit of a difference: ``points`` for percent; empty for a bare number."""
        return "points" if self.unit == _PERCENT else self.unit

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which values it can lie."""
        return (0.0, 100.0) if self.unit == _PERCENT else (-math.inf, math.inf)

    @property
    def _arrow(self) -> str:
        return "" if self.higher_is_better else " ↓"

    def scaled_to(self, values: Iterable[float | None]) -> MetricSpec:
        """The same, with as many decimals as tell such values apart."""
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        if self.unit == _PERCENT or not largest or not math.isfinite(largest):
            return replace(self, decimals=2)
        decimals = _DIGITS - 1 - math.floor(math.log10(largest))
        return replace(self, decimals=min(max(decimals, 0), 6))


UNNAMED = MetricSpec()


def spec_of(name: str, metric: Metric, values: Iterable[float | None] = ()) -> MetricSpec:
    """What a metric says of itself, written as ``values``, or its own, ask for."""
    return MetricSpec(
        name=name,
        label=metric.label,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
    ).scaled_to([metric.value, *values])
