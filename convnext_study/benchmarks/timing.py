"""Timing: rates of interleaved repeats, their ratios, and their table.

Not torch's `Timer`, which would warm up again for every repeat.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import digits, number

K = TypeVar("K")
T = TypeVar("T")
Measure = Callable[[], float]  # runs once and returns a rate, higher is faster
Row = dict[str, Any]  # of JSON values


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


def interleave(measures: Mapping[K, Callable[[], T]], repeats: int) -> dict[K, list[T]]:
    """Call each measure once per repeat, in an order that is reversed each time.

    So a temporary slowdown of the machine affects all measures, and the first one varies.
    """
    results: dict[K, list[T]] = {name: [] for name in measures}
    for repeat in range(repeats):
        names = list(measures) if repeat % 2 == 0 else list(measures)[::-1]
        for name in names:
            results[name].append(measures[name]())
    return results


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The ratio of two measures, repeat by repeat."""
    return Spread.of([x / y for x, y in zip(above, below, strict=True)])


def timed(call: Callable[[], T], clock: Callable[[], float] | None = None) -> tuple[T, float]:
    """What ``call`` returns, and the seconds it took, by ``clock`` or the wall clock."""
    clock = clock or time.perf_counter
    start = clock()
    value = call()
    return value, clock() - start


def rate(
    step: Callable[[], object],
    images: int,
    seconds: float,
    clock: Callable[[], float] | None = None,
) -> Measure:
    """Images per second of ``step``, repeated for at least ``seconds``.

    ``step`` waits for its device. It is called twice before, since first calls allocate and plan.
    """
    step()
    calls = max(1, math.ceil(seconds / max(timed(step, clock)[1], 1e-6)))

    def repeat() -> None:
        for _ in range(calls):
            step()

    return lambda: images * calls / timed(repeat, clock)[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread during the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait(device: str) -> None:
    """Wait for a GPU, which runs asynchronously."""
    if device != "cpu":
        import torch

        (torch.cuda if device.startswith("cuda") else torch.mps).synchronize()


def compare(name: str, rates: Mapping[str, Sequence[float]], **facts: Any) -> Row:
    """A row with the images/s of all forms, and the first form's ratios to the others."""
    ours, *others = rates
    return {
        "name": name,
        **facts,
        "images_per_s": {form: Spread.of(values).to_dict() for form, values in rates.items()},
        "ratio": {form: ratio(rates[ours], rates[form]).to_dict() for form in others},
    }


def show(spread: Mapping[str, float] | None) -> str:
    """``1.25 (1.20-1.31)``: the median and the extremes."""
    if spread is None:
        return ""
    return f"{number(spread['median'])} ({number(spread['low'])}-{number(spread['high'])})"


def comparison_table(name: str, title: str, rows: Sequence[Row]) -> Table[Row]:
    """Rows made by `compare`. Ratios above 1 mean that the first form is faster."""

    def over(form: str) -> Column[Row]:
        return Column(form, f"over {form}", lambda row: row["ratio"].get(form), format=show)

    columns: list[Column[Row]] = [
        Column("name", name, lambda row: row["name"], "text"),
        Column("job", "job", lambda row: row.get("job"), "text"),
        Column(
            "rate",
            "images/s",
            lambda row: next(iter(row["images_per_s"].values()))["median"],
            format=digits(0),
        ),
        *map(over, dict.fromkeys(form for row in rows for form in row["ratio"])),
    ]
    return Table(name, title, columns, rows)
