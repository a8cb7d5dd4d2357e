"""Which networks an attribution takes, and what single steps and pairs of them are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from convnext_study.results.statistics.subsets import (
    Coalition,
    all_coalitions,
    coalitions_of,
    coalitions_within,
    sampled_permutations,
    shapley_exact,
    shapley_sampled,
)
from convnext_study.roadmap import get_roadmap

STEPS = ("a", "b", "c", "d", "e", "f")


def game(steps: Iterable[str], value: Callable[[Coalition], float]) -> dict[Coalition, float]:
    """The value of every set of steps."""
    return {subset: value(subset) for subset in all_coalitions(list(steps))}


def test_orders_come_in_pairs_and_again_the_same() -> None:
    steps = get_roadmap("nano").adopted()
    orders = sampled_permutations(steps, 5, seed=1)
    assert len(orders) == 10
    assert all(back == order[::-1] for order, back in zip(orders[::2], orders[1::2], strict=True))
    assert all(sorted(order) == sorted(steps) for order in orders)
    assert orders == sampled_permutations(steps, 5, seed=1)
    assert orders[:4] == sampled_permutations(steps, 2, seed=1)
    assert orders != sampled_permutations(steps, 5, seed=2)


def test_no_network_is_planned_twice() -> None:
    orders = [("a", "b", "c"), ("c", "b", "a"), ("a", "c", "b"), ("b", "c", "a")]
    plan = coalitions_of(orders)
    assert plan == tuple(frozenset(names) for names in ("", "a", "ab", "abc", "c", "cb", "ac", "b"))


def test_a_plan_holds_all_that_its_answer_takes_and_no_more() -> None:
    values = {subset: float(len(subset)) for subset in all_coalitions(STEPS)}
    orders = sampled_permutations(STEPS, 4)
    plans: dict[tuple[frozenset[str], ...], Callable[[dict[frozenset[str], float]], object]] = {
        all_coalitions(STEPS): lambda v: shapley_exact(STEPS, v),
        coalitions_of(orders): lambda v: shapley_sampled(orders, v),
    }
    for plan, answer in plans.items():
        assert len(set(plan)) == len(plan)
        enough = {subset: values[subset] for subset in plan}
        answer(enough)
        for subset in plan:
            with pytest.raises(KeyError):
                answer({other: v for other, v in enough.items() if other != subset})


def test_near_plans_count() -> None:
    assert [len(coalitions_within(STEPS, "end", near)) for near in (1, 2)] == [7, 22]
    assert frozenset("abcdef") in coalitions_within(STEPS, "end", 1)
    assert frozenset() in coalitions_within(STEPS, "base", 1)
