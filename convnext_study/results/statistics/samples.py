"""A metric over its test samples, and its intervals for another draw of samples or of groups.

A metric with evidence is a mean over classes of the ratio of two sums over the samples: of right
answers by answers, of values by ones, of intersections by unions. So it is computed from sums
alone, and drawing samples anew is weighting them. Samples of one group (frames of one scene,
patches of one image) are not independent: they are drawn together, as one unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Interval,
    t_quantile,
    wilson_interval,
)

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

Kind = Literal["bits", "ratio", "values"]


@dataclass(frozen=True)
class SampleSums:
    """Runs of one network on the same samples.

    Args:
        sums: float64 (units, runs, classes, 2): what is divided, and what it is divided by, summed
            over each unit.
        scale: 100 for a metric in percent, 1 for one in its own unit.
        samples: how many there are.
        grouped: whether a unit is a group of samples and not one sample.
    """

    sums: Array
    scale: float
    samples: int
    grouped: bool

    @property
    def units(self) -> int:
        """How many independent draws there are."""
        return len(self.sums)

    @property
    def measured(self) -> int:
        """How many of them something is measured on, in the run with the fewest."""
        return int((self.sums[..., 1] > 0).any(axis=2).sum(axis=0).min())

    @property
    def drawn(self) -> str:
        """In words: ``599 test images``, ``40 groups of test images``."""
        return (
            f"{self.units} groups of test images" if self.grouped else f"{self.units} test images"
        )

    def of_runs(self, part: slice) -> SampleSums:
        """Some of the runs."""
        return replace(self, sums=self.sums[:, part])

    def value(self) -> float:
        """The metric, as a mean over the runs."""
        return float(metric_of(self.sums.sum(axis=0), self.scale))


def sample_sums(kind: Kind, runs: Sequence[Array], groups: Array | None = None) -> SampleSums:
    """The sums of runs' evidence.

    Args:
        kind: as in ``runs.metrics.Samples``.
        runs: of each run, alike, bools or floats (samples,), or counts (samples, classes, 2).
        groups: the group of each sample (samples,); None: each sample is one of its own.
    """
    import numpy as np

    arrays = np.stack([np.asarray(run, dtype=float) for run in runs], axis=1)
    if kind != "ratio":
        arrays = np.stack([arrays, np.ones_like(arrays)], axis=-1)[:, :, None, :]
    if groups is not None:
        _, place = np.unique(groups, return_inverse=True)
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        summed = np.add.reduceat(arrays[order], starts, axis=0)
    else:
        summed = arrays
    scale = 1.0 if kind == "values" else 100.0
    return SampleSums(summed, scale, len(arrays), groups is not None)


def jackknife_interval(*parts: SampleSums) -> Interval:
    """A t interval on jackknife values, of a metric's mean over its runs, or of the difference of
    the first part to the second. For few units it covers what a bootstrap does not.

    Unbounded for fewer than two units, or units that are all alike.
    """
    units = parts[0].units
    if min(one.measured for one in parts) < 2:
        return Interval(-math.inf, math.inf)
    values = [pseudo_values(one).mean(axis=0) for one in parts]
    middle = parts[0].value() - sum(one.value() for one in parts[1:])
    error = float((values[0] - sum(values[1:])).std(ddof=1)) / math.sqrt(units)
    if error == 0:
        return Interval(-math.inf, math.inf)
    half = t_quantile(units - 1, CONFIDENCE) * error
    return Interval(middle - half, middle + half)


def pseudo_values(own: SampleSums) -> Array:
    """What each unit says of each run's metric: (runs, units); their mean is the metric, or near
    it where it is no mean."""
    import numpy as np

    runs = [own.sums[:, [run]] for run in range(own.sums.shape[1])]
    made = []
    for one in runs:
        total = one.sum(axis=0)
        whole, left_out = metric_of(total, own.scale), metric_of(total - one, own.scale)
        made.append(own.units * whole - (own.units - 1) * left_out)
    return np.stack(made)


def metric_of(totals: Array, scale: float) -> Array:
    """The mean over runs and classes of what sums (..., runs, classes, 2) stand for: (...).

    NaN where nothing was measured: a run without a class whose second sum is above 0.
    """
    import numpy as np

    above, below = totals[..., 0], totals[..., 1]
    there = below > 0
    shares = np.where(there, above / np.where(there, below, 1), 0.0)
    classes = there.sum(axis=-1)
    by_run = np.where(classes, shares.sum(axis=-1) / np.maximum(classes, 1), np.nan)
    return np.asarray(scale * by_run.mean(axis=-1))


FEW_UNITS = 40  # below which a t interval on jackknife values takes a bootstrap's place
RESAMPLES = 2000
SEED = 0  # the same records give the same numbers
_BLOCKS = 4000  # units that are drawn; of more, blocks: the spread is then known within 2 %
_AT_ONCE = 4_000_000  # weights held in memory


def bootstrap_interval(own: SampleSums) -> Interval:
    """The bootstrap interval (BCa, Efron 1987) of a metric's mean over its runs.

    It covers the choice of test samples alone. Unbounded where all units are alike.
    """
    return bca(own.sums, lambda totals: metric_of(totals, own.scale), CONFIDENCE)


def grouped_wilson(right: Array, groups: Array) -> Interval:
    """Wilson's interval, in percent, of samples that come in groups.

    ``right`` is each sample's share of runs that have it right. The samples count as so many
    independent ones as would give the variance between groups (Kish 1965), with a t quantile for
    the number of groups (Korn and Graubard 1998). Where all samples are alike, only the groups
    count.
    """
    count = len(right) / design_effect(right, groups)
    df = len(set(groups.tolist())) - 1
    share = min(max(float(right.mean()), 0.0), 1.0)
    return wilson_interval(share * count, count, df=df)


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
    """The bias-corrected and accelerated bootstrap interval of a function of sums over units.

    A draw on which nothing is measured (NaN) does not count.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    units, whole = _in_blocks(units), float(statistic(units.sum(axis=0)))
    flat, total = units.reshape(len(units), -1), units.sum(axis=0)
    drawn = np.concatenate(
        [
            statistic((weights @ flat).reshape(-1, *units.shape[1:]))
            for weights in _weights(len(units))
        ]
    )
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn) or np.ptp(drawn) == 0:
        return Interval(-math.inf, math.inf)
    share = float((drawn < whole).mean() + (drawn <= whole).mean()) / 2
    bias = float(ndtri(min(max(share, 1 / (2 * len(drawn))), 1 - 1 / (2 * len(drawn)))))
    left_out = statistic(total - units)
    left_out = left_out[~np.isnan(left_out)]
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
    at_once = max(1, _AT_ONCE // units)
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        places = draw.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * units)
        yield counts.reshape(size, units).astype(float)


def _in_blocks(units: Array) -> Array:
    """The sums (units, ...) of at most `_BLOCKS` random blocks of units, of equal size but one."""
    import numpy as np

    if len(units) <= _BLOCKS:
        return units
    mixed = units[np.random.default_rng(SEED).permutation(len(units))]
    each = -(-len(units) // _BLOCKS)
    return np.asarray(np.add.reduceat(mixed, np.arange(0, len(units), each), axis=0))
