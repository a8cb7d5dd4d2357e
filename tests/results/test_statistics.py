"""Intervals, tests and power against published and hand-worked numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from convnext_study.errors import UserError
from convnext_study.results.claims import tost
from convnext_study.results.paper import paper_std
from convnext_study.results.statistics.intervals import (
    Difference,
    Interval,
    PooledStd,
    homogeneity,
    pool_std,
    pooled_difference,
    t_difference,
    two_way,
    welch_difference,
)
from convnext_study.results.statistics.paired_samples import (
    answers_difference,
    seeds_and_images,
    tango_interval,
)
from convnext_study.results.statistics.power import detectable_effect, power_of, seeds_needed
from convnext_study.results.statistics.samples import sample_sums

# Student's sleep data (1908): hours gained by ten patients with each of two drugs.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


# Intervals


def test_welch_difference_of_students_sleep_data() -> None:
    found = welch_difference(SLEEP_1, SLEEP_2)
    assert found.df == pytest.approx(17.776, abs=1e-3)
    assert found.p == pytest.approx(0.07939, abs=1e-5)
    assert found.interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)


def test_pooled_deviation_and_difference_by_hand() -> None:
    # Sums of squares 2 and 8 over 2 + 2 degrees of freedom; a single run tells nothing.
    std = pool_std([[1, 2, 3], [2, 4, 6], [9]], "three rows")
    assert std == PooledStd(math.sqrt(10 / 4), 4, "three rows")
    found = pooled_difference([5, 6, 7], [2, 3, 4], std)
    error = math.sqrt(2.5 * 2 / 3)
    assert found.diff == 3
    assert found.interval == pytest.approx((3 - 2.776445 * error, 3 + 2.776445 * error), abs=1e-5)
    # t = 2.3238 on 4 degrees of freedom, whose distribution has a closed form.
    share = 3 / error / math.sqrt(4 + (3 / error) ** 2)
    assert found.p == pytest.approx(1 - share * (3 - share**2) / 2, abs=1e-9)
    assert pool_std([[1], []], "nothing") is None


def test_homogeneity_is_levenes_test_about_medians() -> None:
    rows = [[1.0, 2.0, 3.0], [2.0, 2.5, 3.0], [1.0, 5.0, 9.0]]
    apart = [[1.0, 0.0, 1.0], [0.5, 0.0, 0.5], [4.0, 0.0, 4.0]]  # from each row's median
    assert homogeneity(rows) == pytest.approx(stats.f_oneway(*apart).pvalue)
    assert homogeneity([[1.0, 2.0], [3.0, 9.0]]) is None
    assert homogeneity([[1.0] * 3, [2.0] * 3]) is None


def test_without_spread_nothing_is_certain() -> None:
    unknown = welch_difference([97.0, 97.0], [96.0, 96.0])
    assert unknown == Difference(1, Interval(-math.inf, math.inf), 1, math.inf, unknown.method)
    # With images worth half a point the deviation is taken as half a point: t = 2 at df = 2, whose
    # distribution has a closed form.
    known = welch_difference([97.0, 97.0], [96.0, 96.0], resolution=0.5)
    assert (known.df, known.p) == pytest.approx((2, 1 - 2 / math.sqrt(2 + 2**2)))
    same = welch_difference([97.0, 97.0], [97.0, 97.0], resolution=0.5)
    assert same.p == 1
    assert same.interval.low < 0 < same.interval.high


# Test images


def discordant(wins: int, losses: int, images: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Right answers of two runs: so many images only the one has right, and only the other."""
    place = np.arange(images)
    return place < wins, (place >= wins) & (place < wins + losses)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # The two worked examples of Fagerland, Lydersen and Laake, chapter 8.
    [((1, 7, 21), -51.7, -2.6), ((6, 16, 161), -12.40, -0.54)],
)
def test_one_run_each_has_tangos_published_interval_and_no_test(
    counts: tuple[int, int, int], low: float, high: float
) -> None:
    wins, losses, images = counts
    found = answers_difference(*discordant(*counts))
    assert found.interval == pytest.approx((low, high), abs=0.05)
    assert found.diff == pytest.approx(100 * (wins - losses) / images)
    assert (found.p, found.df) == (None, None)


def test_tango_interval_with_nothing_discordant() -> None:
    # The score equation is then n d^2 = z^2 d (1 - d).
    end = 100 * 1.959964**2 / (599 + 1.959964**2)
    assert tango_interval(0, 0, 599) == pytest.approx((-end, end), abs=1e-4)
    assert tango_interval(8, 0, 8).high == 100
    assert tango_interval(0, 8, 8).low == -100


def crossed(child: Any, parent: Any) -> Difference:
    """Of right and wrong answers (seeds, images)."""
    sums = (sample_sums("bits", list(one)) for one in (child, parent))
    return seeds_and_images(*sums, resolution=100 / child.shape[1])


def test_seeds_and_images_by_hand() -> None:
    # Differences 1 1 0 0 / 1 0 0 0: means 1/2, 1/4 by seed, 1, 1/2, 0, 0 by image, 3/8 in all.
    # Mean squares: seeds 4 (1/32) = 1/8, images 2 (11/16) / 3 = 11/24, rest (3/8) / 3 = 1/8.
    child = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    found = crossed(child, np.zeros((2, 4), bool))
    assert found.diff == pytest.approx(37.5)
    # The least deviation of a seed, one image, is 1/16: more than the 1/32 found.
    of_seeds = 4 / 16
    spread = of_seeds + 11 / 24 - 1 / 8
    assert found.df == pytest.approx((spread / of_seeds) ** 2)
    by_hand = t_difference(37.5, 100 * math.sqrt(spread / 8), (spread / of_seeds) ** 2, "")
    assert found.interval == pytest.approx(by_hand.interval)


# Equivalence, and two factors crossed


@pytest.mark.parametrize(("shift", "margin"), [(0.0, 1.0), (0.4, 1.0), (-0.6, 0.8), (2.0, 1.0)])
def test_two_one_sided_t_tests(shift: float, margin: float) -> None:
    draw = np.random.default_rng(3)
    diffs = shift + 0.5 * draw.standard_normal(8)
    error = float(diffs.std(ddof=1)) / math.sqrt(8)
    above = stats.ttest_1samp(diffs, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(diffs, margin, alternative="less").pvalue
    p = tost(float(diffs.mean()), error, 7, margin)
    assert p == pytest.approx(max(above, below))


def test_nothing_is_alike_without_a_measure_of_noise() -> None:
    assert tost(0.0, 0.0, 4, 1.0) == 1.0
    with pytest.raises(UserError, match=r"^margin: 0; use the smallest difference that matters"):
        tost(0.0, 1.0, 4, 0)


def test_two_factors_by_hand() -> None:
    # Means 2 6 / 3 11, of rows 4 and 7, of columns 2.5 and 8.5, of all 5.5; a cell's two values
    # lie 1 from its mean. Sums of squares: 18 and 72, interaction 8, the rest 8 over 4.
    cells = [[[1.0, 3.0], [5.0, 7.0]], [[2.0, 4.0], [10.0, 12.0]]]
    found = two_way(cells, ("architecture", "weights"))
    for factor, squares in ((found.rows, 18), (found.columns, 72), (found.interaction, 8)):
        assert (factor.f, factor.share) == pytest.approx((squares / 2, squares / 106))
        assert factor.p == pytest.approx(float(stats.f.sf(squares / 2, 1, 4)))
    assert (found.std, found.df) == pytest.approx((math.sqrt(2), 4))
    with pytest.raises(UserError, match=r"^a two-way table needs at least two"):
        two_way([[[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0, 2.0]]])


# The number of seeds


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
