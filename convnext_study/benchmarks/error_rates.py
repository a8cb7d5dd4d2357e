"""How often the tests of a road are wrong: ``python -m convnext_study.benchmarks.error_rates``.

Roads of 17 rows whose values are drawn, with the road's own tree of comparisons, go through the
primary test (Welch's t with Holm's correction over 16 steps) and through the secondary one, whose
standard deviation is pooled over all rows. Its table stands in docs/report.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.results.compare import ALPHA
from convnext_study.results.paper import paper_std
from convnext_study.results.statistics.intervals import CONFIDENCE, holm, welch_difference
from convnext_study.roadmap import T
from convnext_study.roadmap.paper import PAPER

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

_CHECKED = 10  # roads that the product's own functions test as well


@dataclass(frozen=True)
class Scenario:
    """How rows deviate between seeds, in words and as a multiple of the standard deviation.

    ``spread`` is the relative standard deviation of the rows' standard deviations, ``loud`` the
    factor of one row's.
    """

    label: str
    spread: float = 0.0
    loud: float = 1.0


SCENARIOS = (
    Scenario("equal"),
    Scenario("vary by 30 %", spread=0.3),
    Scenario("vary by 50 %", spread=0.5),
    Scenario("one row 4 times noisier", loud=4.0),
)


@dataclass(frozen=True)
class Rates:
    """Shares over roads: of one or more false steps where nothing has an effect (``family``), and
    of steps whose 95 % interval holds the truth, in the worst pair (``coverage``); and the mean
    number of significant steps where the effects are the paper's (``found``)."""

    family: float
    coverage: float
    found: float


def simulate(scenario: Scenario, seeds: int, roads: int) -> dict[str, Rates]:
    """The rates of both tests, ``welch`` and ``pooled``, over so many roads."""
    import numpy as np

    draw = np.random.default_rng(seeds)
    count = len(T.variants())
    scales = np.abs(1 + scenario.spread * draw.standard_normal((roads, count, 1)))
    scales[:, count // 2] *= scenario.loud
    noise = scales * draw.standard_normal((roads, count, seeds))
    truth = np.array([row.top1 for row in PAPER["t"].values()]) / paper_std().std
    found = {}
    for name, test in (("welch", _welch), ("pooled", _pooled)):
        difference, p, half = test(noise)
        covers = (np.abs(difference) <= half).mean(axis=0)
        _, effect_p, _ = test(noise + truth[:, None])
        found[name] = Rates(
            float((_holm(p) <= ALPHA).any(axis=1).mean()),
            float(covers.min()),
            float((_holm(effect_p) <= ALPHA).sum(axis=1).mean()),
        )
    _check(noise)
    return found


def _pairs() -> tuple[list[int], list[int]]:
    rows = T.variants()
    names = [row.name for row in rows]
    children = [place for place, row in enumerate(rows) if row.parent is not None]
    return children, [names.index(rows[place].parent or "") for place in children]


def _tested(difference: Array, error: Array, df: Array) -> tuple[Array, Array, Array]:
    """Differences, two-sided p and half of the 95 % intervals: (roads, steps) each."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    p = 2 * stdtr(df, -np.abs(difference) / error)
    return difference, p, stdtrit(df, (1 + CONFIDENCE) / 2) * error


def _welch(values: Array) -> tuple[Array, Array, Array]:
    import numpy as np

    seeds, (child, parent) = values.shape[2], _pairs()
    mean, part = values.mean(axis=2), values.var(axis=2, ddof=1) / seeds
    total = part[:, child] + part[:, parent]
    df = total**2 / ((part[:, child] ** 2 + part[:, parent] ** 2) / (seeds - 1))
    return _tested(mean[:, child] - mean[:, parent], np.sqrt(total), df)


def _pooled(values: Array) -> tuple[Array, Array, Array]:
    import numpy as np

    seeds, (child, parent) = values.shape[2], _pairs()
    mean = values.mean(axis=2)
    error = np.sqrt(values.var(axis=2, ddof=1).mean(axis=1, keepdims=True) * 2 / seeds)
    df = np.full_like(error, values.shape[1] * (seeds - 1))
    return _tested(mean[:, child] - mean[:, parent], error, df)


def _holm(p: Array) -> Array:
    """Holm-adjusted p of each line of (roads, steps)."""
    import numpy as np

    order = np.argsort(p, axis=1)
    steps = np.arange(p.shape[1], 0, -1)
    rising = np.maximum.accumulate(np.take_along_axis(p, order, 1) * steps, axis=1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(rising, 1), 1)
    return adjusted


def _check(values: Array) -> None:
    """Raises AssertionError where the package's own functions say otherwise."""
    import numpy as np

    _, p, _ = _welch(values[:_CHECKED])
    for road, mine, adjusted in zip(values, p, _holm(p), strict=False):
        pairs = zip(*_pairs(), strict=True)
        found = [welch_difference(list(road[a]), list(road[b])).p for a, b in pairs]
        its = [one for one in found if one is not None]
        np.testing.assert_allclose(mine, np.array(its))
        np.testing.assert_allclose(adjusted, np.array(holm(its)))


def table(seeds: Sequence[int], roads: int) -> str:
    """The rates in Markdown."""
    lines = [
        "| seeds, deviations of rows | false alarms: Welch | pooled | 95 % interval covers, worst "
        "pair: Welch | pooled | of the paper's 16 steps significant: Welch | pooled |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in seeds:
        for scenario in SCENARIOS:
            found = simulate(scenario, count, roads)
            welch, pooled = found["welch"], found["pooled"]
            cells = (
                f"{count}, {scenario.label}",
                *(f"{100 * one.family:.1f} %" for one in (welch, pooled)),
                *(f"{100 * one.coverage:.0f} %" for one in (welch, pooled)),
                *(f"{one.found:.1f}" for one in (welch, pooled)),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--roads", type=int, default=10_000, help="simulated roads per line")
    print(table((2, 3, 5), parser.parse_args().roads))
