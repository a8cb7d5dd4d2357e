"""Rates and times of interleaved repeats, and their ratios."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Measure = Callable[[], float]  # runs once and returns a rate, higher is faster


@dataclass(frozen=True)
class Spread:
    """Median and extremes over repeats."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one or more repeated measurements."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def interleave(measures: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Call each measure once per repeat, in an order that is reversed each time.

    What slows the machine for a while then hits all that are compared, and the one that comes
    first is not always the same.
    """
    found: dict[str, list[T]] = {name: [] for name in measures}
    for turn in range(repeats):
        names = list(measures) if turn % 2 == 0 else list(measures)[::-1]
        for name in names:
            found[name].append(measures[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The ratio of two measures, repeat by repeat."""
    return Spread.of([one / other for one, other in zip(above, below, strict=True)])


def rate(step: Callable[[], object], images: int, seconds: float) -> Measure:
    """Images a second of ``step``, repeated for at least ``seconds``.

    ``step`` is called twice beforehand, unmeasured: first calls allocate and plan.
    """
    step()
    began = time.perf_counter()
    step()
    calls = max(1, math.ceil(seconds / max(time.perf_counter() - began, 1e-6)))

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            step()
        return images * calls / (time.perf_counter() - began)

    return measure


def laps(
    run: Callable[[], Iterable[object]],
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], object] = lambda: None,
) -> list[float]:
    """Seconds from the start of ``run`` to each of the items that it yields.

    Args:
        run: called once; nothing is warmed up.
        clock: `time.process_time` counts this process alone, on a machine that others use too.
        wait: called before the clock is read, for devices that answer before they are done.
    """
    wait()
    began = clock()
    found: list[float] = []
    for _ in run():
        wait()
        found.append(clock() - began)
    return found
