"""A metric over its test samples, and its intervals for another draw of samples or of groups.

A metric with evidence is a mean over classes of the ratio of two sums over the samples: right
answers over answers, values over ones, intersections over unions. So it is computed from sums
alone, and resampling amounts to weighting them. Samples of one group (frames of one scene, patches
of one image) are not independent: they are drawn together, as one unit.
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
        sums: float64 (units, runs, classes, 2): numerator and denominator, summed over each unit.
        scale: 100 for a metric in percent, 1 for one in its own unit.
        samples: their number.
        grouped: whether a unit is a group of samples and not one sample.
    """

    sums: Array
    scale: float
    samples: int
    grouped: bool

    @property
    def units(self) -> int:
        """The number of independent draws."""
        return len(self.sums)

    @property
    def measured(self) -> int:
        """How many units have a measurement, in the run with the fewest."""
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
        runs: per run, in one shape, bools or floats (samples,), or counts (samples, classes, 2).
        groups: the group of each sample (samples,); None: each sample is its own group.
    """
    import numpy as np

    arrays = np.stack([np.asarray(run, dtype=float) for run in runs], axis=1)
    if kind != "ratio":
        arrays = np.stack([arrays, np.ones_like(arrays)], axis=-1)[:, :, None, :]
    if groups is not None:
        _, group_index = np.unique(groups, return_inverse=True)
        order = np.argsort(group_index, kind="stable")
        starts = np.flatnonzero(np.diff(group_index[order], prepend=-1))
        summed = np.add.reduceat(arrays[order], starts, axis=0)
    else:
        summed = arrays
    scale = 1.0 if kind == "values" else 100.0
    return SampleSums(summed, scale, len(arrays), groups is not None)


def jackknife_interval(*parts: SampleSums) -> Interval:
    """A t interval on jackknife values, of a metric's mean over its runs, or of the first part
    minus the second. With few units its coverage is better than a bootstrap's.

    Unbounded for fewer than two units, or units that are all equal.
    """
    units = parts[0].units
    if min(part.measured for part in parts) < 2:
        return Interval(-math.inf, math.inf)
    values = [pseudo_values(part).mean(axis=0) for part in parts]
    centre = parts[0].value() - sum(part.value() for part in parts[1:])
    error = float((values[0] - sum(values[1:])).std(ddof=1)) / math.sqrt(units)
    if error == 0:
        return Interval(-math.inf, math.inf)
    half_width = t_quantile(units - 1, CONFIDENCE) * error
    return Interval(centre - half_width, centre + half_width)


def pseudo_values(network: SampleSums) -> Array:
    """Jackknife pseudo-values of each run's metric: (runs, units); their mean is the metric, or
    close to it where it is no mean."""
    import numpy as np

    runs = [network.sums[:, [run]] for run in range(network.sums.shape[1])]
    values = []
    for run_sums in runs:
        total = run_sums.sum(axis=0)
        full = metric_of(total, network.scale)
        without = metric_of(total - run_sums, network.scale)
        values.append(network.units * full - (network.units - 1) * without)
    return np.stack(values)


def metric_of(totals: Array, scale: float) -> Array:
    """The metric of sums (..., runs, classes, 2), as a mean over runs and classes: (...).

    NaN where nothing was measured: a run in which no class has a denominator above 0.
    """
    import numpy as np

    numerators, denominators = totals[..., 0], totals[..., 1]
    present = denominators > 0
    shares = np.where(present, numerators / np.where(present, denominators, 1), 0.0)
    classes = present.sum(axis=-1)
    by_run = np.where(classes, shares.sum(axis=-1) / np.maximum(classes, 1), np.nan)
    return np.asarray(scale * by_run.mean(axis=-1))


FEW_UNITS = 40  # below it a t interval on jackknife values replaces the bootstrap
RESAMPLES = 2000
SEED = 0  # the same records give the same numbers
_BLOCKS = 4000  # more units are drawn in this many blocks: the spread is then known within 2 %
_AT_ONCE = 4_000_000  # weights in memory


def bootstrap_interval(network: SampleSums) -> Interval:
    """The bootstrap interval (BCa, Efron 1987) of a metric's mean over its runs.

    It covers the choice of test samples alone. Unbounded where all units are equal.
    """
    return bca(network.sums, lambda totals: metric_of(totals, network.scale), CONFIDENCE)


def grouped_wilson(right: Array, groups: Array) -> Interval:
    """Wilson's interval, in percent, of samples that come in groups.

    ``right`` is the share of runs that have each sample right. The samples count as the number of
    independent ones that would give the variance between groups (Kish 1965), with a t quantile for
    the number of groups (Korn and Graubard 1998). Where all samples are equal, only the groups
    count.
    """
    count = len(right) / design_effect(right, groups)
    df = len(set(groups.tolist())) - 1
    share = min(max(float(right.mean()), 0.0), 1.0)
    return wilson_interval(share * count, count, df=df)


def design_effect(values: Array, groups: Array) -> float:
    """How many times larger grouping makes the variance of a mean; 1 or more."""
    import numpy as np

    names, group_index = np.unique(groups, return_inverse=True)
    count, number = len(values), len(names)
    deviations = values - values.mean()
    independent = float((deviations**2).sum()) / (count - 1) * count if count > 1 else 0.0
    if independent == 0 or number < 2:
        return count / number
    between = float((np.bincount(group_index, deviations) ** 2).sum()) * number / (number - 1)
    return min(max(between / independent, 1.0), float(count))


def bca(units: Array, statistic: Callable[[Array], Array], confidence: float) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of a function of sums over units.

    Draws without a measurement (NaN) do not count.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    units, observed = _in_blocks(units), float(statistic(units.sum(axis=0)))
    flat, total = units.reshape(len(units), -1), units.sum(axis=0)
    draws = np.concatenate(
        [
            statistic((weights @ flat).reshape(-1, *units.shape[1:]))
            for weights in _weights(len(units))
        ]
    )
    draws = draws[~np.isnan(draws)]
    if not len(draws) or np.ptp(draws) == 0:
        return Interval(-math.inf, math.inf)
    share = float((draws < observed).mean() + (draws <= observed).mean()) / 2
    bias = float(ndtri(min(max(share, 1 / (2 * len(draws))), 1 - 1 / (2 * len(draws)))))
    left_out = statistic(total - units)
    left_out = left_out[~np.isnan(left_out)]
    deviations = left_out.mean() - left_out
    squares = float((deviations**2).sum())
    acceleration = float((deviations**3).sum()) / (6 * squares**1.5) if squares else 0.0
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + float(ndtri(tail))
        ends.append(float(ndtr(bias + z / (1 - acceleration * z))))
    low, high = np.quantile(draws, ends)
    return Interval(float(low), float(high))


def _weights(units: int) -> Iterator[Array]:
    """How often each unit is drawn, in each of `RESAMPLES` resamples: (draws, units)."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    at_once = max(1, _AT_ONCE // units)
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        indices = rng.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(indices.ravel(), minlength=size * units)
        yield counts.reshape(size, units).astype(float)


def _in_blocks(units: Array) -> Array:
    """The sums (units, ...) of at most `_BLOCKS` random blocks, of equal size except one."""
    import numpy as np

    if len(units) <= _BLOCKS:
        return units
    shuffled = units[np.random.default_rng(SEED).permutation(len(units))]
    block_size = -(-len(units) // _BLOCKS)
    return np.asarray(np.add.reduceat(shuffled, np.arange(0, len(units), block_size), axis=0))
