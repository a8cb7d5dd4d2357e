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

from convnext_study.errors import UserError

Coalition = frozenset[str]
Values = Mapping[Coalition, float]
Permutation = tuple[str, ...]
Side = Literal["base", "end"]

MOST_EXACT = 16  # steps: 65536 networks


def sampled_permutations(
    steps: Sequence[str], pairs: int, seed: int = 0
) -> tuple[Permutation, ...]:
    """Random orders of the steps, each followed by its reverse: ``2 * pairs`` of them.

    An order and its reverse err in opposite ways, so their mean is steadier than two fresh orders'
    (antithetic sampling, Mitchell et al. 2022). More pairs of one seed begin with the same orders.
    """
    _check_steps(steps)
    if pairs < 1:
        raise UserError(f"{pairs} pairs of orders: give 1 or more")
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
    """Every set of steps. Raises UserError for more than `MOST_EXACT` steps."""
    _check_steps(steps)
    if len(steps) > MOST_EXACT:
        raise UserError(f"{len(steps)} steps have {2 ** len(steps)} sets: sample orders instead")
    return _each_once(
        frozenset(chosen) for size in range(len(steps) + 1) for chosen in combinations(steps, size)
    )


def coalitions_within(steps: Sequence[str], side: Side, distance: int) -> tuple[Coalition, ...]:
    """The networks at most ``distance`` steps from one end of the road.

    Distance 1 is what leave-one-out (``end``) and add-one-in (``base``) take, 2 is for pairs.
    """
    _check_steps(steps)
    return _each_once(
        _near(steps, side, chosen)
        for size in range(distance + 1)
        for chosen in combinations(steps, size)
    )


def pair_interactions(
    steps: Sequence[str], values: Values, side: Side
) -> dict[tuple[str, str], float]:
    """Interactions: the gain of two steps together minus the sum of their gains, from one end.

    From the end ``v(all) - v(-i) - v(-j) + v(-ij)``, from the base
    ``v(ij) - v(i) - v(j) + v(none)``: above 0 they need each other, below 0 either will do.
    """
    _check_steps(steps)
    found = {}
    for pair in combinations(steps, 2):
        far, near = (value_of(values, _near(steps, side, chosen)) for chosen in (pair, ()))
        singles = (value_of(values, _near(steps, side, [step])) for step in pair)
        found[pair] = far - sum(singles) + near
    return found


def prefixes(permutation: Sequence[str]) -> list[Coalition]:
    """The sets that an order of steps passes through, from none to all."""
    return [frozenset(permutation[:size]) for size in range(len(permutation) + 1)]


def value_of(values: Values, subset: Coalition) -> float:
    """Raises UserError, naming the steps, where the value is missing."""
    if subset not in values:
        names = f"the steps {', '.join(sorted(subset))}" if subset else "no step"
        raise UserError(f"no value for the network with {names}: train it first")
    return values[subset]


def _near(steps: Sequence[str], side: Side, chosen: Iterable[str]) -> Coalition:
    """The base with ``chosen``, or the end without them."""
    return frozenset(chosen) if side == "base" else frozenset(steps) - frozenset(chosen)


def _each_once(subsets: Iterable[Coalition]) -> tuple[Coalition, ...]:
    return tuple(dict.fromkeys(subsets))


def _check_steps(steps: Sequence[str]) -> None:
    if not steps or len(set(steps)) < len(steps):
        raise UserError(f"steps {', '.join(steps) or '(none)'}: give one or more, each once")
