"""How a study's metric is named and formatted: label, unit, direction, decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from convnext_study.runs.metrics import Metric

_PERCENT = "%"
_DIGITS = 4  # significant digits of a value that is no percentage


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric without its value; by default an unknown one.

    ``name`` is its key in records; ``decimals`` is the number of decimals of printed values.
    """

    name: str = ""
    label: str = "value"
    unit: str = ""
    higher_is_better: bool = True
    decimals: int = 2

    @property
    def sign(self) -> int:
        """Turns a difference into a gain, which is above 0 for the better."""
        return 1 if self.higher_is_better else -1

    @property
    def heading(self) -> str:
        """A column's heading: ``top-1 %``; an arrow marks that lower is better."""
        return f"{self.label} {self.unit}".strip() + self._arrow

    @property
    def axis(self) -> str:
        """An axis label: ``top-1, %``."""
        return ", ".join(filter(None, (self.label, self.unit))) + self._arrow

    @property
    def title(self) -> str:
        """The label, capitalised; names such as mIoU stay as they are."""
        first = self.label.partition(" ")[0].rstrip(",")
        return self.label if first != first.lower() else self.label[:1].upper() + self.label[1:]

    @property
    def step_unit(self) -> str:
        """The unit of a difference: ``points`` for percent; empty for a bare number."""
        return "points" if self.unit == _PERCENT else self.unit

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest possible value."""
        return (0.0, 100.0) if self.unit == _PERCENT else (-math.inf, math.inf)

    @property
    def _arrow(self) -> str:
        return "" if self.higher_is_better else " ↓"

    def scaled_to(self, values: Iterable[float | None]) -> MetricSpec:
        """The same, with enough decimals to distinguish such values."""
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        if self.unit == _PERCENT or not largest or not math.isfinite(largest):
            return replace(self, decimals=2)
        decimals = _DIGITS - 1 - math.floor(math.log10(largest))
        return replace(self, decimals=min(max(decimals, 0), 6))


UNNAMED = MetricSpec()


def spec_of(name: str, metric: Metric, values: Iterable[float | None] = ()) -> MetricSpec:
    """The spec of a metric, with decimals that suit ``values`` and its own value."""
    return MetricSpec(
        name=name,
        label=metric.label,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
    ).scaled_to([metric.value, *values])
