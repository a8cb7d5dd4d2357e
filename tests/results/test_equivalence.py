"""Equivalence tests and two factors crossed, against other ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from convnext_study.errors import UserError
from convnext_study.results.claims import tost
from convnext_study.results.statistics.intervals import (
    Interval,
    t_quantile,
    two_way,
)


def t_interval(diff: float, error: float, df: float, confidence: float) -> Interval:
    half = t_quantile(df, confidence) * error
    return Interval(diff - half, diff + half)


@pytest.mark.parametrize(("shift", "margin"), [(0.0, 1.0), (0.4, 1.0), (-0.6, 0.8), (2.0, 1.0)])
def test_two_one_sided_t_tests(shift: float, margin: float) -> None:
    draw = np.random.default_rng(3)
    diffs = shift + 0.5 * draw.standard_normal(8)
    error = float(diffs.std(ddof=1)) / math.sqrt(8)
    above = stats.ttest_1samp(diffs, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(diffs, margin, alternative="less").pvalue
    p = tost(float(diffs.mean()), error, 7, margin)
    assert p == pytest.approx(max(above, below))


def test_alike_just_where_the_interval_lies_within() -> None:
    for diff in (0.0, 0.3, 0.5, 0.9, 1.1):
        interval = t_interval(diff, 0.3, 10, 0.90)
        inside = interval.low > -1 and interval.high < 1
        assert (tost(diff, 0.3, 10, 1.0) < 0.05) is inside


def test_nothing_is_alike_without_a_measure_of_noise() -> None:
    assert tost(0.0, 0.0, 4, 1.0) == 1.0
    with pytest.raises(UserError, match=r"^margin: 0; use a difference above 0"):
        tost(0.0, 1.0, 4, 0)


def test_two_factors_as_regressions_say() -> None:
    draw = np.random.default_rng(5)
    cells = draw.standard_normal((3, 2, 4)) + np.array([0.0, 1.0, 3.0])[:, None, None]
    found = two_way(cells.tolist(), ("architecture", "weights"))
    y = cells.ravel()
    row, column, _ = (place.ravel() for place in np.indices(cells.shape))

    def residual(*terms: np.ndarray) -> float:
        x = np.column_stack([np.ones_like(y), *terms])
        fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]
        return float(((y - fitted) ** 2).sum())

    rows = [(row == one).astype(float) for one in (1, 2)]
    columns = [(column == 1).astype(float)]
    both = [one * columns[0] for one in rows]
    full = residual(*rows, *columns, *both)
    noise = full / (24 - 6)
    for factor, without, df in (
        (found.rows, residual(*columns, *both) - full, 2),
        (found.interaction, residual(*rows, *columns) - full, 2),
    ):
        if factor is found.rows:  # sums of squares of a balanced table do not depend on the rest
            without = residual(*columns) - residual(*rows, *columns)
        assert factor.f == pytest.approx(without / df / noise)
        assert factor.p == pytest.approx(float(stats.f.sf(factor.f, df, 18)))
    assert found.std == pytest.approx(math.sqrt(noise)) and found.df == 18
    shares = [found.rows.share, found.columns.share, found.interaction.share]
    assert sum(shares) + full / float(((y - y.mean()) ** 2).sum()) == pytest.approx(1)


def test_two_factors_take_equal_cells() -> None:
    with pytest.raises(UserError, match=r"^a two-way table takes two or more"):
        two_way([[[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0, 2.0]]])
