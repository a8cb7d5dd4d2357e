"""Error rates of a road's tests: ``python -m convnext_study.benchmarks.error_rates``.

Roads of 17 rows with random values, compared like the road map's rows, are tested with the primary
test (Welch's t with Holm's correction over 16 steps) and with the secondary one, whose standard
deviation is pooled over all rows. The table is in docs/report.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import fmean

from convnext_study.results.compare import ALPHA
from convnext_study.results.paper import paper_std
from convnext_study.results.statistics.intervals import (
    Difference,
    holm,
    pool_std,
    pooled_difference,
    welch_difference,
)
from convnext_study.roadmap import T
from convnext_study.roadmap.paper import PAPER

# How rows deviate between seeds: the relative standard deviation of the rows' standard deviations,
# and a factor for one row's.
SCENARIOS = {
    "equal": (0.0, 1.0),
    "vary by 30 %": (0.3, 1.0),
    "vary by 50 %": (0.5, 1.0),
    "one row 4 times noisier": (0.0, 4.0),
}
Road = list[list[float]]  # values of each row, by seed
_INDEX = {row.name: index for index, row in enumerate(T.variants())}
PAIRS = [(_INDEX[row.name], _INDEX[row.parent]) for row in T.variants() if row.parent]


def simulate(scenario: str, seeds: int, roads: int) -> dict[str, tuple[float, float, float]]:
    """Rates of both tests, ``welch`` and ``pooled``, over that many roads.

    They are the share of roads with one or more false positives if nothing has an effect; the
    share of 95 % intervals that cover the truth, for the worst pair; and the mean number of
    significant steps if the effects are the paper's.
    """
    import numpy as np

    rng, (variation, noisy_factor) = np.random.default_rng(seeds), SCENARIOS[scenario]
    count = len(T.variants())
    scales = np.abs(1 + variation * rng.standard_normal((roads, count, 1)))
    scales[:, count // 2] *= noisy_factor
    noise = scales * rng.standard_normal((roads, count, seeds))
    truth = np.array([row.top1 for row in PAPER["t"].values()]) / paper_std().std
    rates = {}
    for name, pooled in (("welch", False), ("pooled", True)):
        null_tests = [_tested(road.tolist(), pooled) for road in noise]
        effect_tests = [_tested(road.tolist(), pooled) for road in noise + truth[:, None]]
        coverage = [
            fmean(test.interval.low <= 0 <= test.interval.high for test in step)
            for step in zip(*null_tests, strict=True)
        ]
        rates[name] = (
            fmean(_significant(road) > 0 for road in null_tests),
            min(coverage),
            fmean(map(_significant, effect_tests)),
        )
    return rates


def _tested(road: Road, pooled: bool) -> list[Difference]:
    """The difference of every row of a road from its parent."""
    pairs = [(road[child], road[parent]) for child, parent in PAIRS]
    if not pooled:
        return [welch_difference(*pair) for pair in pairs]
    std = pool_std(road, "rows")
    return [pooled_difference(*pair, std) for pair in pairs] if std else []


def _significant(road: Sequence[Difference]) -> int:
    return sum(p <= ALPHA for p in holm([step.p for step in road if step.p is not None]))


def table(seeds: Sequence[int], roads: int) -> str:
    """The rates in Markdown."""
    lines = [
        "| seeds, deviations of rows | false alarms: Welch | pooled | 95 % interval covers, worst "
        "pair: Welch | pooled | of the paper's 16 steps significant: Welch | pooled |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in seeds:
        for scenario in SCENARIOS:
            rates = simulate(scenario, count, roads).values()
            alarms, covers, steps = zip(*rates, strict=True)
            cells = [f"{count}, {scenario}", *(f"{100 * rate:.1f} %" for rate in alarms)]
            cells += [*(f"{100 * rate:.0f} %" for rate in covers), *(f"{n:.1f}" for n in steps)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--roads", type=int, default=10_000, help="simulated roads per line")
    print(table((2, 3, 5), parser.parse_args().roads))
