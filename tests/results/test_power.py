"""The number of seeds against published tables."""

from __future__ import annotations

import math

import pytest

from convnext_study.results.paper import paper_std
from convnext_study.results.statistics.intervals import PooledStd
from convnext_study.results.statistics.power import detectable_effect, power_of, seeds_needed


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_seeds_needed_unpaired_is_cohens_table(effect: float, seeds: int) -> None:
    found = seeds_needed(effect, PooledStd(1.0, 30, "a table"))
    assert found.seeds == seeds
    assert found.reached >= 0.8


def test_power_of_known_designs() -> None:
    # G*Power 3.1: two groups of 64, d = 0.5.
    assert power_of(64, 0.5, 1.0) == pytest.approx(0.8014596, abs=1e-6)
    assert power_of(5, 1e-9, 1.0, alpha=0.05) == pytest.approx(0.05)
    for shift in (0.1, 7.9, 8.1, 50.0, 1e4):
        assert 0.003 < power_of(2, shift, 1.0, alpha=0.003) <= 1


def test_seeds_needed_is_the_fewest_and_grows_with_what_is_asked() -> None:
    std = PooledStd(0.2, 32, "a study")
    found = seeds_needed(0.3, std)
    assert power_of(found.seeds - 1, 0.3, 0.2) < 0.8 <= found.reached
    assert seeds_needed(-0.3, std).seeds == found.seeds
    assert seeds_needed(100, std).seeds == 2
    assert "0.2 points, from a study" in found.assumptions


def test_the_detectable_effect_is_found_with_that_power() -> None:
    for seeds, tests in ((2, 1), (2, 4), (3, 16), (3, 100), (5, 16), (10, 1000), (50, 16)):
        effect = detectable_effect(seeds, 0.46, tests=tests)
        assert power_of(seeds, effect, 0.46, alpha=0.05 / tests) == pytest.approx(0.8, abs=1e-5)


def test_papers_deviation_is_that_of_table_10() -> None:
    # The root of the mean square of the sixteen printed deviations.
    printed = (7, 7, 18, 8, 2, 3, 8, 8, 14, 6, 11, 14, 6, 9, 9, 6)
    found = paper_std()
    assert found.std == pytest.approx(math.sqrt(sum(n * n for n in printed) / 16) / 100)
    assert found.df == 32
