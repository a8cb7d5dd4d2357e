"""Sets of steps and what their values say: which are needed, and what a step changes in each.

A value belongs to the set of steps that a network has, whatever their order: accuracy in percent,
MACs, or any other number, as a mapping from sets of step names. The functions that return sets say
which networks are needed, each once in the order first met, so that none is trained twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

Coalition = frozenset[str]
Values = Mapping[Coalition, float]
Permutation = tuple[str, ...]
Side = Literal["base", "end"]


def sampled_permutations(
    steps: Sequence[str], pairs: int, seed: int = 0
) -> tuple[Permutation, ...]:
    """Random orders of the steps, each followed by its reverse: ``2 * pairs`` of them.

    An order and its reverse err in opposite ways, so their mean is steadier than two fresh orders'
    (antithetic sampling, Mitchell et al. 2022). More pairs of one seed begin with the same orders.
    """
    draw = random.Random(seed)  # noqa: S311
    permutations: list[Permutation] = []
    for _ in range(pairs):
        order = tuple(draw.sample(list(steps), len(steps)))
        permutations += [order, order[::-1]]
    return tuple(permutations)


def coalitions_of(permutations: Iterable[Permutation]) -> tuple[Coalition, ...]:
    """What the orders pass through, base and end included: orders share their common prefixes."""
    return _each_once(subset for order in permutations for subset in prefixes(order))


def all_coalitions(steps: Sequence[str]) -> tuple[Coalition, ...]:
    """Every set of steps, in the order of their sizes."""
    return _each_once(
        frozenset(chosen) for size in range(len(steps) + 1) for chosen in combinations(steps, size)
    )


def coalitions_within(steps: Sequence[str], side: Side, distance: int) -> tuple[Coalition, ...]:
    """The networks at most ``distance`` steps from one end of the road.

    Distance 1 is what leave-one-out (``end``) and add-one-in (``base``) take, 2 is for pairs.
    """
    return _each_once(
        _near(steps, side, chosen)
        for size in range(distance + 1)
        for chosen in combinations(steps, size)
    )


def prefixes(permutation: Sequence[str]) -> list[Coalition]:
    """The sets that an order of steps passes through, from none to all."""
    return [frozenset(permutation[:size]) for size in range(len(permutation) + 1)]


def _near(steps: Sequence[str], side: Side, chosen: Iterable[str]) -> Coalition:
    """The base with ``chosen``, or the end without them."""
    return frozenset(chosen) if side == "base" else frozenset(steps) - frozenset(chosen)


def _each_once(subsets: Iterable[Coalition]) -> tuple[Coalition, ...]:
    return tuple(dict.fromkeys(subsets))
