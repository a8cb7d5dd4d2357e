"""Which networks an attribution takes, and what single steps and pairs of them are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from convnext_study.errors import UserError
from convnext_study.results.statistics.shapley import shapley_exact, shapley_sampled
from convnext_study.results.statistics.subsets import (
    Coalition,
    all_coalitions,
    coalitions_of,
    coalitions_within,
    pair_interactions,
    sampled_permutations,
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
        coalitions_within(STEPS, "end", 2): lambda v: pair_interactions(STEPS, v, "end"),
        coalitions_within(STEPS, "base", 2): lambda v: pair_interactions(STEPS, v, "base"),
    }
    for plan, answer in plans.items():
        assert len(set(plan)) == len(plan)
        enough = {subset: values[subset] for subset in plan}
        answer(enough)
        for subset in plan:
            with pytest.raises(UserError, match="no value for the network with"):
                answer({other: v for other, v in enough.items() if other != subset})


def test_near_plans_count() -> None:
    assert [len(coalitions_within(STEPS, "end", near)) for near in (1, 2)] == [7, 22]
    assert frozenset("abcdef") in coalitions_within(STEPS, "end", 1)
    assert frozenset() in coalitions_within(STEPS, "base", 1)


def test_pair_interactions_by_hand() -> None:
    values = {frozenset(names): v for names, v in {"": 1.0, "a": 4.0, "b": 2.0, "ab": 9.0}.items()}
    assert pair_interactions("ab", values, "end") == {("a", "b"): 4.0}
    assert pair_interactions("ab", values, "base") == {("a", "b"): 4.0}


def test_pairs_that_need_each_other_and_pairs_that_replace_each_other() -> None:
    def value(subset: Coalition) -> float:
        return 2.0 * ({"a", "b"} <= subset) + 3.0 * bool({"c", "d"} & subset) + len(subset)

    for side in ("base", "end"):
        found = pair_interactions("abcd", game("abcd", value), side)
        assert found[("a", "b")] == 2.0
        assert found[("c", "d")] == -3.0
        assert {found[pair] for pair in (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"))} == {0.0}


def test_the_two_ends_see_different_interactions() -> None:
    """A bonus for all three together shows at the end of the road and not at its base."""
    values = game("abc", lambda subset: float(len(subset) == 3))
    assert pair_interactions("abc", values, "end")[("a", "b")] == 1.0
    assert pair_interactions("abc", values, "base")[("a", "b")] == 0.0


def test_a_missing_value_is_named() -> None:
    values = game("ab", len)
    del values[frozenset("ab")]
    with pytest.raises(UserError, match=r"the steps a, b: train it first") as caught:
        shapley_exact("ab", values)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="with no step: train"):
        pair_interactions("ab", {frozenset(of): 1.0 for of in ("a", "b", "ab")}, "base")


@pytest.mark.parametrize(
    "call",
    [
        lambda: all_coalitions([f"step{n}" for n in range(17)]),
        lambda: all_coalitions([]),
        lambda: pair_interactions(["a", "a"], {}, "end"),
        lambda: sampled_permutations("ab", 0),
        lambda: shapley_sampled([], {}),
        lambda: shapley_sampled([("a", "b")], {}),
        lambda: shapley_sampled([("a", "b"), ("a", "b")], {}),
        lambda: shapley_sampled([("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")], {}),
    ],
)
def test_what_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
