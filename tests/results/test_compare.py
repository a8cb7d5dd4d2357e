"""Which test a comparison takes, and what it then says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.fakes import fake_record, fake_result, fake_run

from convnext_study.errors import UserError
from convnext_study.report.tables.comparison import sentence
from convnext_study.results.compare import compare, holm_adjust
from convnext_study.results.statistics.intervals import (
    PooledStd,
    holm,
    pooled_difference,
    welch_difference,
)
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Record

GELU = get_roadmap("nano").variant("gelu")


def made(correct: Any, seed: int = 0, name: str = "child", data: str = "digits") -> Record:
    """A finished run with that correctness; None for a run that is not finished."""
    run = fake_run(GELU, seed, data=data).model_copy(update={"name": name})
    result = None
    if correct is not None:
        bits = np.asarray(correct, dtype=bool)
        result = fake_result(run, 100 * float(bits.mean()), val_images=bits.size, bits=bits)
    return fake_record(run, result)


def counted(right: int, seed: int = 0, images: int = 1000) -> Record:
    """A run with its first ``right`` images right."""
    return made([True] * right + [False] * (images - right), seed)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_seed_is_never_significant() -> None:
    child, parent = np.ones(40, bool), np.ones(40, bool)
    parent[:9], parent[9], child[9] = False, True, False
    found = compare([made(child)], [made(parent)])
    assert found.difference.p is None
    assert found.difference.interval.low > 0
    assert found.difference.diff == pytest.approx(20.0)
    assert found.scope == "test images only, not seeds"
    assert found.significant is None
    assert holm_adjust({"step": found})["step"].significant is None
    assert "for another choice of test images: not tested" in sentence(found)


@pytest.mark.parametrize("first", [0, 2])
def test_seeds_are_tested_by_welch_whether_they_are_shared_or_not(first: int) -> None:
    child = [counted(right, seed) for seed, right in enumerate((950, 941, 962))]
    parent = [counted(right, seed) for seed, right in enumerate((910, 900, 921, 915), start=first)]
    found = compare(child, [*parent, made(None, seed=10)])
    steps = welch_difference([95.0, 94.1, 96.2], [91.0, 90.0, 92.1, 91.5], resolution=0.1)
    assert (found.difference.diff, found.difference.p) == pytest.approx((steps.diff, steps.p))
    assert found.difference.method == steps.method
    assert found.scope == "seeds, on these 1000 test images"
    assert found.significant
    assert (found.new_images is not None) == (first == 0)
    if found.new_images is not None:  # of three shared seeds
        assert found.new_images.diff == pytest.approx(95.1 - 91.0333, abs=1e-3)
    assert compare(child[:2], parent[:2]).new_images is None, "two are not crossed with images"


@pytest.mark.parametrize("seed", [1, 7])
def test_one_run_against_several_is_the_gain_of_means(seed: int) -> None:
    found = compare([counted(950, seed)], [counted(900, 0), counted(940, 1)])
    assert found.significant is None
    assert found.difference.diff == pytest.approx(95 - 92)
    low, high = found.difference.interval
    assert low < 3 < high


def test_a_pooled_deviation_serves_a_single_seed() -> None:
    std = PooledStd(0.3, 30, "15 rows")
    found = compare([counted(950)], [counted(930)], std=std)
    assert found.difference == pooled_difference([95.0], [93.0], std)
    assert found.significant
    assert "15 rows" in sentence(found)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("right", [0, 950, 1000])
def test_equal_networks_are_not_told_apart(seeds: int, right: int) -> None:
    runs = [counted(right, seed) for seed in range(seeds)]
    found = holm_adjust({"step": compare(runs, runs)})["step"]
    assert found.difference.diff == 0
    assert found.difference.p == (None if seeds == 1 else 1)
    assert not found.significant
    assert found.difference.interval.low < 0 < found.difference.interval.high
    assert ("not tested" if seeds == 1 else "not significant") in sentence(found)


def test_holm_counts_the_tests_of_seeds_alone() -> None:
    several = [counted(right, seed) for seed, right in enumerate((950, 941, 962))]
    lower = [counted(right, seed) for seed, right in enumerate((930, 921, 942))]
    one, single = compare(several, lower), compare([counted(950)], [counted(900)])
    found = holm_adjust({"a": one, "b": compare(several, several), "c": single})
    assert one.difference.p is not None
    assert found["a"] == replace(one, p_adjusted=2 * one.difference.p, family=2)
    assert found["c"] == single
    assert "over 2 comparisons" in sentence(found["a"])
    assert holm_adjust({}) == {}


@pytest.mark.parametrize(
    ("child", "parent", "word"),
    [
        ([], [counted(9)], "no finished run"),
        ([made(None)], [counted(9)], "child: no finished run"),
        ([counted(9)], [counted(9, images=999)], "999 test images"),
        ([counted(9)], [made([True] * 1000, data="cifar10")], "cifar10"),
        ([counted(9), counted(8)], [counted(9)], "seed 0 occurs twice"),
    ],
)
def test_what_cannot_be_compared(
    child: Sequence[Record], parent: Sequence[Record], word: str
) -> None:
    with pytest.raises(UserError, match=word) as caught:
        compare(child, parent)
    assert "\n" not in str(caught.value)
