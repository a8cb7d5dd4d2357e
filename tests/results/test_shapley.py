"""Sets of steps, and Shapley values against games with known values, exact and sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from convnext_study.results.statistics.intervals import PooledStd
from convnext_study.results.statistics.subsets import (
    Coalition,
    Shapley,
    all_coalitions,
    sampled_permutations,
    shapley_exact,
    shapley_sampled,
)
from convnext_study.roadmap import get_roadmap

STEPS = ("a", "b", "c", "d", "e", "f")


def game(steps: Iterable[str], value: Callable[[Coalition], float]) -> dict[Coalition, float]:
    """The value of every set of steps."""
    return {subset: value(subset) for subset in all_coalitions(list(steps))}


def random_game(seed: int, steps: Iterable[str] = STEPS) -> dict[Coalition, float]:
    draw = np.random.default_rng(seed)
    return game(steps, lambda subset: draw.normal(95 + len(subset), 1.0))


def shares(found: Shapley) -> dict[str, float]:
    return {step: share.value for step, share in found.shares.items()}


# Sets


def test_orders_come_in_pairs_and_again_the_same() -> None:
    steps = get_roadmap("nano").adopted()
    orders = sampled_permutations(steps, 5, seed=1)
    assert len(orders) == 10
    assert all(back == order[::-1] for order, back in zip(orders[::2], orders[1::2], strict=True))
    assert all(sorted(order) == sorted(steps) for order in orders)
    assert orders == sampled_permutations(steps, 5, seed=1)
    assert orders[:4] == sampled_permutations(steps, 2, seed=1)
    assert orders != sampled_permutations(steps, 5, seed=2)


# Exact


def test_glove_game() -> None:
    """One has a left glove, two a right one; a pair is worth 1 (Shapley and Shubik 1969)."""
    values = game("lrs", lambda have: float("l" in have and len(have) > 1))
    found = shapley_exact("lrs", values)
    assert shares(found) == pytest.approx({"l": 2 / 3, "r": 1 / 6, "s": 1 / 6})


@pytest.mark.parametrize("seed", range(5))
def test_shares_add_up_to_the_difference_between_the_ends(seed: int) -> None:
    values = random_game(seed)
    total = values[frozenset(STEPS)] - values[frozenset()]
    for found in (
        shapley_exact(STEPS, values),
        shapley_sampled(sampled_permutations(STEPS, 1, seed), values),
        shapley_sampled(sampled_permutations(STEPS, 7, seed), values),
    ):
        assert found.total == total
        assert math.fsum(shares(found).values()) == pytest.approx(total, abs=1e-10)


# Sampled


def test_intervals_hold_the_exact_value_as_often_as_they_say() -> None:
    values = random_game(2)
    exact = shares(shapley_exact(STEPS, values))
    held = [
        share.interval is not None and share.interval.low <= exact[step] <= share.interval.high
        for seed in range(150)
        for step, share in shapley_sampled(
            sampled_permutations(STEPS, 10, seed), values
        ).shares.items()
    ]
    assert 0.92 < sum(held) / len(held) < 0.98


@pytest.mark.parametrize("exact", [True, False])
def test_noise_of_the_values_is_in_the_error(exact: bool) -> None:
    """Games of nothing but noise of deviation 0.5, of which the intervals are told."""
    noise = PooledStd(0.5, 40, "a study")
    squares, errors, held = [], [], []
    for seed in range(150):
        draw = np.random.default_rng(seed)
        values = game("abcd", lambda subset: draw.normal(0, 0.5))  # noqa: B023
        found = (
            shapley_exact("abcd", values, noise=noise)
            if exact
            else shapley_sampled(sampled_permutations("abcd", 6, seed), values, noise=noise)
        )
        assert "a study" in found.method
        for share in found.shares.values():
            assert share.error is not None and share.interval is not None
            squares.append(share.value**2)
            errors.append(share.error**2)
            held.append(share.interval.low <= 0 <= share.interval.high)
    assert sum(errors) == pytest.approx(sum(squares), rel=0.15)
    assert 0.92 < sum(held) / len(held) < 0.99
