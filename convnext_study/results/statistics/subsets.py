"""Sets of steps: which networks an analysis needs, and each step's Shapley value, its gain averaged
over all orders, exact or sampled.

A value belongs to the set of steps that a network has, whatever their order: accuracy in percent,
MACs, or any other number, as a mapping from sets of step names. The functions that return sets list
the networks needed without repetition, in order of first use, so that none is trained twice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, variance
from typing import Literal

from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Interval,
    PooledStd,
    added_error,
    t_quantile,
)

Coalition = frozenset[str]
Values = Mapping[Coalition, float]
Permutation = tuple[str, ...]
Side = Literal["base", "end"]
FEWEST_PAIRS = 4  # of orders, for an interval


def sampled_permutations(
    steps: Sequence[str], pairs: int, seed: int = 0
) -> tuple[Permutation, ...]:
    """Random orders of the steps, each followed by its reverse: ``2 * pairs`` of them.

    An order and its reverse err in opposite directions, so their mean varies less than two random
    orders' (antithetic sampling, Mitchell et al. 2022). More pairs of a seed start with the same.
    """
    rng = random.Random(seed)  # noqa: S311
    permutations: list[Permutation] = []
    for _ in range(pairs):
        order = tuple(rng.sample(list(steps), len(steps)))
        permutations += [order, order[::-1]]
    return tuple(permutations)


def coalitions_of(permutations: Iterable[Permutation]) -> tuple[Coalition, ...]:
    """The sets on the paths of these orders, base and end included; common prefixes are shared."""
    return _unique(subset for order in permutations for subset in prefixes(order))


def all_coalitions(steps: Sequence[str]) -> tuple[Coalition, ...]:
    """Every set of steps, smallest first."""
    return _unique(
        frozenset(subset) for size in range(len(steps) + 1) for subset in combinations(steps, size)
    )


def coalitions_within(steps: Sequence[str], side: Side, distance: int) -> tuple[Coalition, ...]:
    """The networks at most ``distance`` steps from one end of the road.

    Distance 1 is for leave-one-out (``end``) and add-one-in (``base``), 2 for pairs.
    """
    return _unique(
        _from_side(steps, side, subset)
        for size in range(distance + 1)
        for subset in combinations(steps, size)
    )


def prefixes(permutation: Sequence[str]) -> list[Coalition]:
    """The sets that an order of steps passes through, from none to all."""
    return [frozenset(permutation[:size]) for size in range(len(permutation) + 1)]


def _from_side(steps: Sequence[str], side: Side, subset: Iterable[str]) -> Coalition:
    """The base with ``chosen``, or the end without them."""
    return frozenset(subset) if side == "base" else frozenset(steps) - frozenset(subset)


def _unique(subsets: Iterable[Coalition]) -> tuple[Coalition, ...]:
    return tuple(dict.fromkeys(subsets))


@dataclass(frozen=True)
class ShapleyValue:
    """A step's Shapley value, its standard error and interval.

    Error and interval are None where there are too few pairs of orders to estimate them.
    """

    value: float
    error: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Shapley:
    """Each step's share of ``total``, the end's value minus the base's, which is their sum."""

    shares: dict[str, ShapleyValue]
    total: float
    method: str


def shapley_exact(
    steps: Sequence[str],
    values: Values,
    *,
    noise: PooledStd | None = None,
) -> Shapley:
    """Each step's gain averaged over all orders, from the values of all sets (Shapley 1953).

    ``noise`` is the standard deviation of one value (of a mean over n seeds: that between seeds
    over the square root of n), independent across sets; without it there are no intervals.
    """
    sets = all_coalitions(steps)
    count = len(steps)
    weights = [1 / (count * math.comb(count - 1, size)) for size in range(count)]
    gains = {
        step: math.fsum(
            weights[len(subset)] * (values[subset | {step}] - values[subset])
            for subset in sets
            if step not in subset
        )
        for step in steps
    }
    errors = _Errors(noise, count)
    exact = None if noise is None else 0.0
    return Shapley(
        shares={step: errors.share(gain, exact, math.inf) for step, gain in gains.items()},
        total=values[frozenset(steps)] - values[frozenset()],
        method=f"exact, from all {len(sets)} sets of steps" + errors.words,
    )


def shapley_sampled(
    permutations: Sequence[Permutation],
    values: Values,
    *,
    noise: PooledStd | None = None,
) -> Shapley:
    """Each step's gain averaged over the orders of `sampled_permutations` (Castro et al. 2009).

    Every order's gains add up to the total, hence so do their means, whatever the noise. The
    standard error is that of the mean over pairs of orders, which are independent draws, with a t
    interval, for `FEWEST_PAIRS` or more (two cover .87); the error from ``noise``, as in
    `shapley_exact`, is added.
    """
    pairs = list(zip(permutations[::2], permutations[1::2], strict=True))
    steps = permutations[0]
    gains: dict[str, list[float]] = {step: [] for step in steps}
    for pair in pairs:
        pair_gains = []
        for order in pair:
            path = [values[subset] for subset in prefixes(order)]
            pair_gains.append({step: path[i + 1] - path[i] for i, step in enumerate(order)})
        for step in steps:
            gains[step].append(fmean(own[step] for own in pair_gains))
    errors = _Errors(noise, len(steps))
    shares = {}
    for step, samples in gains.items():
        spread = variance(samples) / len(samples) if len(pairs) >= FEWEST_PAIRS else None
        shares[step] = errors.share(fmean(samples), spread, len(samples) - 1)
    networks = len(coalitions_of(permutations))
    return Shapley(
        shares=shares,
        total=values[frozenset(steps)] - values[frozenset()],
        method=(
            f"{len(permutations)} sampled orders ({len(pairs)} with their reverses), "
            f"from {networks} networks"
            + (errors.words if len(pairs) >= FEWEST_PAIRS else "; too few for an interval")
        ),
    )


@dataclass(frozen=True)
class _Errors:
    """Combines the two errors of a Shapley value: of the orders drawn, and of the values."""

    noise: PooledStd | None
    steps: int

    @property
    def words(self) -> str:
        if self.noise is None:
            return "; the intervals do not include the variance between seeds"
        return f"; standard deviation of a value {self.noise.std:.3g}, from {self.noise.source}"

    def share(self, value: float, orders: float | None, df: float) -> ShapleyValue:
        """``orders`` is the variance of the mean over orders; None if unknown."""
        if orders is None:
            return ShapleyValue(value, None, None)
        parts = [(orders, df)]
        if self.noise is not None:
            parts.append((self.noise.std**2 * _noise_factor(self.steps), self.noise.df))
        error, df = added_error(*zip(*parts, strict=True))
        half_width = t_quantile(df, CONFIDENCE) * error
        return ShapleyValue(value, error, Interval(value - half_width, value + half_width))


def _noise_factor(steps: int) -> float:
    """Variance of a Shapley value of pure noise of variance 1, the same for each step.

    It applies to sampled orders too: their error is around the exact value of the noisy game, and
    this is the error of that value itself.
    """
    return 2 * sum(1 / math.comb(steps - 1, size) for size in range(steps)) / steps**2
