"""Where the accuracy axis of a figure begins and ends, and what stands on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Axis:
    """Limits and ticks, in percent. ``cut`` says that the axis does not begin at 0."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @property
    def cut(self) -> bool:
        return self.low > 0


def accuracy_axis(values: Iterable[float]) -> Axis:
    """An axis on which the values can be told apart and even the smallest has a bar."""
    values = list(values) or [0.0, 100.0]
    least, most = min(values), min(max(values), 100.0)
    span = max(most - least, 1.0)
    step = next(one for one in _STEPS if span * 1.35 / one <= 7 or one == _STEPS[-1])
    low = round(math.floor((most - 1.3 * span) / step) * step, 4)
    if low < 0.3 * most or low <= 0:  # little is gained by cutting the axis
        low, most = 0.0, max(most, 1.0)
        step = next(one for one in _STEPS if most / one <= 7 or one == _STEPS[-1])
    high = most + 0.04 * (most - low)
    count = math.floor((min(high, 100.0) - low) / step + 1e-9)
    return Axis(low, high, tuple(round(low + place * step, 4) for place in range(count + 1)))
