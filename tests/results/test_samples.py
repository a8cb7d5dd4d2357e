"""Metrics over samples: intervals and paired tests against scipy's and against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from convnext_study.results.statistics.intervals import wilson_interval
from convnext_study.results.statistics.paired_samples import samples_difference
from convnext_study.results.statistics.samples import (
    bootstrap_interval,
    design_effect,
    grouped_wilson,
    jackknife_interval,
    sample_sums,
)

RNG = np.random.default_rng(3)
VALUES = RNG.gamma(2.0, 5.0, 80)  # skewed, as times are


def test_a_jackknife_interval_of_a_mean_is_students() -> None:
    few, other = VALUES[:12], VALUES[12:24]
    found = jackknife_interval(sample_sums("values", [few]))
    assert found == pytest.approx(tuple(stats.ttest_1samp(few, 0).confidence_interval()))
    sums = [sample_sums("values", [one]) for one in (few, other)]
    expected = stats.ttest_rel(few, other).confidence_interval()
    assert jackknife_interval(*sums) == pytest.approx(tuple(expected))


def test_a_ratio_is_a_mean_over_classes_and_leaves_out_absent_ones() -> None:
    counts = np.array([[[1, 2], [3, 4], [0, 0]], [[2, 4], [0, 6], [0, 0]]])
    sums = sample_sums("ratio", [counts])
    assert sums.value() == pytest.approx(100 * (3 / 6 + 3 / 10) / 2)
    low, high = bootstrap_interval(sample_sums("ratio", [np.tile(counts, (20, 1, 1))]))
    assert low < sums.value() < high


def test_a_metric_of_nothing_is_no_number() -> None:
    nothing = np.zeros((20, 2, 2))
    assert math.isnan(sample_sums("ratio", [nothing]).value())
    assert bootstrap_interval(sample_sums("ratio", [nothing])) == (-math.inf, math.inf)
    one = nothing.copy()
    one[3] = [[1, 2], [1, 4]]
    sums = sample_sums("ratio", [one])
    assert (sums.value(), sums.units, sums.measured) == (37.5, 20, 1)
    # Without that image nothing is known, and with it alone nothing of another.
    assert bootstrap_interval(sums) == (-math.inf, math.inf)
    assert jackknife_interval(sums) == (-math.inf, math.inf)
    two = sample_sums("ratio", [np.concatenate([one, np.add(one, [[1, 1], [0, 0]])])])
    low, high = bootstrap_interval(two)
    assert 25 <= low < two.value() < high <= 100


def test_a_paired_interval_is_scipys_bootstrap_of_differences() -> None:
    other = VALUES + np.random.default_rng(3).normal(0.4, 1.0, len(VALUES))
    found = samples_difference(*(sample_sums("values", [one]) for one in (other, VALUES)))
    expected = stats.bootstrap(
        (other - VALUES,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert found.interval == pytest.approx(tuple(expected), abs=0.06 * width)
    assert found.diff == pytest.approx(float((other - VALUES).mean()))
    assert found.p is None
    equal = samples_difference(*(sample_sums("values", [VALUES]) for _ in range(2)))
    assert equal.interval == (-math.inf, math.inf)


def test_samples_of_a_group_count_once() -> None:
    """Every sample eight times says no more than once; as if independent it would."""
    draw = np.random.default_rng(7)
    once = {name: draw.random(50) < share for name, share in (("child", 0.9), ("parent", 0.7))}
    groups = np.repeat(np.arange(50), 8)
    many = {name: np.repeat(bits, 8) for name, bits in once.items()}
    single = samples_difference(*(sample_sums("bits", [bits]) for bits in once.values()))
    grouped = samples_difference(*(sample_sums("bits", [bits], groups) for bits in many.values()))
    assert grouped.interval == pytest.approx(single.interval)
    interval = grouped_wilson(many["child"].astype(float), groups)
    assert design_effect(many["child"].astype(float), groups) == pytest.approx(8, rel=0.03)
    alone = wilson_interval(int(once["child"].sum()), 50)
    assert interval == pytest.approx(alone, abs=0.6)
    assert bootstrap_interval(sample_sums("bits", [many["child"]], groups)) == pytest.approx(
        bootstrap_interval(sample_sums("bits", [once["child"]]))
    )


def test_many_samples_are_drawn_in_blocks() -> None:
    draw = np.random.default_rng(8)
    values = draw.gamma(2.0, 5.0, 9001)
    other = values + draw.normal(0.12, 3.0, 9001)
    sums = [sample_sums("values", [one]) for one in (other, values)]
    low, high = bootstrap_interval(sums[1])
    assert high - low == pytest.approx(2 * 1.96 * stats.sem(values), rel=0.06)
    found = samples_difference(*sums)
    expected = stats.ttest_rel(other, values).confidence_interval()
    assert found.interval == pytest.approx(tuple(expected), abs=0.06 * (expected[1] - expected[0]))
    assert found.diff == pytest.approx(float((other - values).mean()))


def test_groups_that_say_nothing_have_no_effect() -> None:
    right = np.random.default_rng(1).random(4000) < 0.7
    groups = np.random.default_rng(2).integers(400, size=4000)
    assert design_effect(right.astype(float), groups) < 1.15
    all_right, names = np.ones(30), np.repeat(np.arange(3), 10)
    assert design_effect(all_right, names) == 10  # nothing varies: only the groups are sure
    assert grouped_wilson(all_right, names).high == 100
