"""Intervals of one network's metric, for the choice of its test samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from convnext_study.results.statistics.intervals import CONFIDENCE, Interval, wilson_interval
from convnext_study.results.statistics.samples import SampleSums, metric_of

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

RESAMPLES = 2000
SEED = 0  # the same records give the same numbers
_BLOCKS = 4000  # units that are drawn; of more, blocks: the spread is then known within 2 %
_AT_ONCE = 4_000_000  # weights held in memory


def bootstrap_interval(own: SampleSums, *, confidence: float = CONFIDENCE) -> Interval:
    """The bootstrap interval (BCa, Efron 1987) of a metric's mean over its runs.

    It covers the choice of test samples alone. Unbounded where all units are alike.
    """
    return bca(own.sums, lambda totals: metric_of(totals, own.scale), confidence)


def grouped_wilson(
    right: Array, groups: Array, *, confidence: float = CONFIDENCE
) -> tuple[Interval, float]:
    """Wilson's interval, in percent, of samples that come in groups; and its design effect.

    ``right`` is each sample's share of runs that have it right. The samples count as so many
    independent ones as would give the variance between groups (Kish 1965), with a t quantile for
    the number of groups (Korn and Graubard 1998). Where all samples are alike, only the groups
    count.
    """
    effect = design_effect(right, groups)
    count = len(right) / effect
    df = len(set(groups.tolist())) - 1
    share = min(max(float(right.mean()), 0.0), 1.0)
    return wilson_interval(share * count, count, df=df, confidence=confidence), effect


def design_effect(values: Array, groups: Array) -> float:
    """How many times larger the variance of a mean is than if no sample had a group; 1 or more."""
    import numpy as np

    names, place = np.unique(groups, return_inverse=True)
    count, number = len(values), len(names)
    apart = values - values.mean()
    alone = float((apart**2).sum()) / (count - 1) * count if count > 1 else 0.0
    if alone == 0 or number < 2:
        return count / number
    between = float((np.bincount(place, apart) ** 2).sum()) * number / (number - 1)
    return min(max(between / alone, 1.0), float(count))


def bca(units: Array, statistic: Callable[[Array], Array], confidence: float) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of a function of sums over units."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    units, whole = in_blocks(units), float(statistic(units.sum(axis=0)))
    flat, total = units.reshape(len(units), -1), units.sum(axis=0)
    drawn = np.concatenate(
        [
            statistic((weights @ flat).reshape(-1, *units.shape[1:]))
            for weights in _weights(len(units))
        ]
    )
    if np.ptp(drawn) == 0:
        return Interval(-math.inf, math.inf)
    share = float((drawn < whole).mean() + (drawn <= whole).mean()) / 2
    bias = float(ndtri(min(max(share, 1 / (2 * len(drawn))), 1 - 1 / (2 * len(drawn)))))
    left_out = statistic(total - units)
    apart = left_out.mean() - left_out
    squares = float((apart**2).sum())
    acceleration = float((apart**3).sum()) / (6 * squares**1.5) if squares else 0.0
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + float(ndtri(tail))
        ends.append(float(ndtr(bias + z / (1 - acceleration * z))))
    low, high = np.quantile(drawn, ends)
    return Interval(float(low), float(high))


def _weights(units: int) -> Iterator[Array]:
    """How often each unit is drawn, in each of `RESAMPLES` draws of as many: (draws, units)."""
    import numpy as np

    draw = np.random.default_rng(SEED)
    for size in batches(RESAMPLES, units):
        places = draw.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * units)
        yield counts.reshape(size, units).astype(float)


def in_blocks(units: Array) -> Array:
    """The sums (units, ...) of at most `_BLOCKS` random blocks of units, of equal size but one."""
    import numpy as np

    if len(units) <= _BLOCKS:
        return units
    mixed = units[np.random.default_rng(SEED).permutation(len(units))]
    each = -(-len(units) // _BLOCKS)
    return np.asarray(np.add.reduceat(mixed, np.arange(0, len(units), each), axis=0))


def batches(number: int, units: int) -> Iterator[int]:
    """How many draws of so many units to make at once, until ``number`` are made."""
    at_once = max(1, _AT_ONCE // units)
    for start in range(0, number, at_once):
        yield min(at_once, number - start)
