"""Networks on the same test samples: the interval of a difference for other samples, and for other
samples and other seeds together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    t_difference,
    t_quantile,
)
from convnext_study.results.statistics.samples import (
    FEW_UNITS,
    SampleSums,
    bca,
    jackknife_interval,
    metric_of,
    pseudo_values,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy import ndarray
    from numpy.typing import NDArray

    Array = ndarray[Any, Any]
    Bits = NDArray[np.bool_]


def samples_difference(child: SampleSums, parent: SampleSums) -> Difference:
    """Two networks on the same samples: the difference and its interval for other samples.

    The interval is a BCa bootstrap over units, of fewer than `FEW_UNITS` a t interval on jackknife
    values. Nothing is tested.
    """
    import numpy as np

    scale, runs = child.scale, child.sums.shape[1]

    def difference(totals: Array) -> Array:
        child_totals, parent_totals = totals[..., :runs, :, :], totals[..., runs:, :, :]
        return metric_of(child_totals, scale) - metric_of(parent_totals, scale)

    if child.units < FEW_UNITS:
        interval, how = jackknife_interval(child, parent), "t interval on jackknife values"
    else:
        both = np.concatenate([child.sums, parent.sums], axis=1)
        interval, how = bca(both, difference, CONFIDENCE), "bootstrap"
    differ = int((child.sums.mean(axis=1) != parent.sums.mean(axis=1)).any(axis=(1, 2)).sum())
    method = f"{how} over {child.drawn}, {differ} of which differ"
    return Difference(child.value() - parent.value(), interval, None, None, method)


def answers_difference(child: Bits, parent: Bits) -> Difference:
    """The difference, in points, of two runs' shares of right answers on the same images, with
    Tango's score interval for other images. Nothing is tested.

    Args:
        child: whether the run has each image right: (images,).
        parent: the same of the other run.
    """
    wins, losses, images = int((child & ~parent).sum()), int((parent & ~child).sum()), child.size
    method = f"Tango's interval over {images} test images, {wins + losses} of which differ"
    interval = tango_interval(wins, losses, images)
    return Difference(100 * (wins - losses) / images, interval, None, None, method)


def seeds_and_images(
    child: SampleSums,
    parent: SampleSums,
    *,
    resolution: float = 0.0,
) -> Difference:
    """The difference over shared seeds, with both seeds and test images random.

    Each seed's child and parent see each unit, so the jackknife pseudo-values of their difference
    (for right and wrong answers: 100, 0 or -100) fill a table of seeds by units. The variance of
    its mean comes from the mean squares of a crossed two-way analysis without replication, and the
    degrees of freedom are Hillis's (Dorfman, Berbaum and Metz 1992; Hillis 2007, for readers and
    cases). Where images add nothing it equals the paired t test over seeds, also in that the
    standard deviation between seeds is assumed to be ``resolution`` at least.
    """
    units, seeds = child.sums.shape[:2]
    table = pseudo_values(child) - pseudo_values(parent)
    mean = table.mean()
    by_seed, by_unit = table.mean(axis=1), table.mean(axis=0)
    ms_seeds = units * max(by_seed.var(ddof=1), resolution**2)
    ms_units = seeds * by_unit.var(ddof=1)
    residuals = table - by_seed[:, None] - by_unit[None, :] + mean
    ms_residual = (residuals**2).sum() / ((seeds - 1) * (units - 1))
    expected = ms_seeds + max(ms_units - ms_residual, 0.0)
    df = expected**2 / (ms_seeds**2 / (seeds - 1)) if ms_seeds else math.inf
    error = math.sqrt(expected / (seeds * units))
    units_name = "groups of test images" if child.grouped else "test images"
    method = (
        f"seeds crossed with {units_name} ({seeds} by {units}), both random "
        "(Dorfman-Berbaum-Metz with Hillis's degrees of freedom)"
    )
    diff = child.value() - parent.value()
    return t_difference(diff, error, float(df), method)


_LARGE = 1e6  # a score beyond any quantile: the root finder fails on infinity


def tango_interval(wins: int, losses: int, images: int) -> Interval:
    """Tango's score interval, in points, of a difference of paired proportions (Tango 1998):
    ``wins`` are the images that only the child has right, ``losses`` those that only the parent
    has."""
    from scipy.optimize import brentq

    z = t_quantile(math.inf, CONFIDENCE)
    centre = (wins - losses) / images

    def score(delta: float) -> float:
        linear = (2 * images - wins + losses) * delta - wins - losses
        constant = -losses * delta * (1 - delta)
        root = math.sqrt(max(0.0, linear * linear - 8 * images * constant))
        nuisance = (root - linear) / (4 * images)
        spread = images * (2 * nuisance + delta * (1 - delta))
        gap = images * (centre - delta)
        # At both ends the constrained variance is zero.
        return gap / math.sqrt(spread) if spread > 0 else math.copysign(_LARGE, gap) * (gap != 0)

    low = -1.0 if centre == -1 else brentq(lambda d: score(d) - z, -1.0, centre, xtol=1e-10)
    high = 1.0 if centre == 1 else brentq(lambda d: score(d) + z, centre, 1.0, xtol=1e-10)
    return Interval(100 * low, 100 * high)
