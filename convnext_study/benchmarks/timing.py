"""The one timer: rates of interleaved repeats, and their ratios.

Not torch's own `Timer`: it warms up anew for every measurement, and here every repeat is one.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

K = TypeVar("K")
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


def interleave(measures: Mapping[K, Callable[[], T]], repeats: int) -> dict[K, list[T]]:
    """Call each measure once per repeat, in an order that is reversed each time.

    What slows the machine for a while then hits all that are compared, and the one that comes
    first is not always the same.
    """
    found: dict[K, list[T]] = {name: [] for name in measures}
    for turn in range(repeats):
        names = list(measures) if turn % 2 == 0 else list(measures)[::-1]
        for name in names:
            found[name].append(measures[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The ratio of two measures, repeat by repeat."""
    return Spread.of([one / other for one, other in zip(above, below, strict=True)])


def timed(call: Callable[[], T], clock: Callable[[], float] | None = None) -> tuple[T, float]:
    """What ``call`` returns, and the seconds it took; by ``clock``, or else the wall's."""
    clock = clock or time.perf_counter
    began = clock()
    value = call()
    return value, clock() - began


def rate(
    step: Callable[[], object],
    images: int,
    seconds: float,
    clock: Callable[[], float] | None = None,
) -> Measure:
    """Images a second of ``step``, repeated for at least ``seconds``.

    ``step`` waits for its device. It is called twice beforehand: first calls allocate and plan.
    """
    step()
    calls = max(1, math.ceil(seconds / max(timed(step, clock)[1], 1e-6)))

    def repeat() -> None:
        for _ in range(calls):
            step()

    return lambda: images * calls / timed(repeat, clock)[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread in the block, and as many as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
