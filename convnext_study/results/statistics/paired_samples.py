"""Two networks on the same test samples: right and wrong answers, or any metric with evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    t_difference,
    t_quantile,
)
from convnext_study.results.statistics.samples import (
    FEW_UNITS,
    SEED,
    SampleSums,
    batches,
    bca,
    in_blocks,
    jackknife_interval,
    metric_of,
    pseudo_values,
)

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[np.bool_]

FLIPS = 9999  # of a permutation test, where not all of them can be made
_EXACT = 13  # units that differ, up to which all their 2**13 exchanges are made


def paired_test(
    child: SampleSums, parent: SampleSums, *, confidence: float = CONFIDENCE
) -> Difference:
    """Two networks on the same samples: a permutation test and a bootstrap interval.

    Were the networks alike, each unit's evidence of the one could as well be the other's: p is the
    share of such exchanges whose difference is as large (all of them for few units that differ,
    else `FLIPS` drawn ones; Good 2005). For right and wrong answers that is McNemar's exact test.
    The interval is a BCa bootstrap of the difference over units, of fewer than `FEW_UNITS` a t
    interval on jackknife values, widened where needed to hold zero where p does not reach
    ``1 - confidence``.

    Raises UserError for other samples.
    """
    import numpy as np

    if child.sums.shape != parent.sums.shape or child.grouped != parent.grouped:
        raise UserError(
            f"{child.samples} and {parent.samples} test images cannot be paired: use the same data"
        )
    scale, runs = child.scale, child.sums.shape[1]
    p = _exchange_p(child.sums, parent.sums, scale)
    both = np.concatenate([child.sums, parent.sums], axis=1)

    def difference(totals: Array) -> Array:
        mine, its = totals[..., :runs, :, :], totals[..., runs:, :, :]
        return metric_of(mine, scale) - metric_of(its, scale)

    low, high = (
        bca(both, difference, confidence)
        if child.units >= FEW_UNITS
        else jackknife_interval(child, parent, confidence=confidence)
    )
    if p > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    kind = "sign-flip test" if child.grouped else "permutation test"
    differ = int((child.sums != parent.sums).any(axis=(1, 2, 3)).sum())
    method = f"{kind} on {child.drawn}, {differ} of which differ"
    return Difference(child.value() - parent.value(), Interval(low, high), p, None, method)


def seeds_and_images(
    child: SampleSums,
    parent: SampleSums,
    *,
    resolution: float = 0.0,
) -> Difference:
    """The difference over shared seeds, with both seeds and test images as drawn by chance.

    Each seed's child and parent see each unit, so the jackknife pseudo-values of their difference
    (for right and wrong answers: 100, 0 or -100) fill a table of seeds by units. The variance of
    its mean comes from the mean squares of a crossed two-way analysis without replication, and the
    degrees of freedom are Hillis's (Dorfman, Berbaum and Metz 1992; Hillis 2007, for readers and
    cases). Where images add nothing it is the paired t test over seeds. As there, seeds are taken
    to deviate by ``resolution`` at least.
    """
    if child.sums.shape != parent.sums.shape:
        raise UserError("runs of other samples or seeds: two or more shared seeds are due")
    units, seeds = child.sums.shape[:2]
    if seeds < 2:
        raise UserError(f"{seeds} shared seeds: two or more are due")
    if min(child.measured, parent.measured) < 2:
        raise UserError("one test image tells nothing of another: use more")
    table = pseudo_values(child) - pseudo_values(parent)
    mean = table.mean()
    by_seed, by_unit = table.mean(axis=1), table.mean(axis=0)
    of_seeds = units * max(by_seed.var(ddof=1), resolution**2)
    of_units = seeds * by_unit.var(ddof=1)
    rest = table - by_seed[:, None] - by_unit[None, :] + mean
    of_rest = (rest**2).sum() / ((seeds - 1) * (units - 1))
    spread = of_seeds + max(of_units - of_rest, 0.0)
    df = spread**2 / (of_seeds**2 / (seeds - 1)) if of_seeds else math.inf
    error = math.sqrt(spread / (seeds * units))
    what = "groups of test images" if child.grouped else "test images"
    method = (
        f"seeds crossed with {what} ({seeds} by {units}), both random "
        "(Dorfman-Berbaum-Metz with Hillis's degrees of freedom)"
    )
    diff = child.value() - parent.value()
    return t_difference(diff, error, float(df), method)


def _exchange_p(child: Array, parent: Array, scale: float) -> float:
    """Two-sided p of exchanging the units of two networks, by chance or in every way."""
    import numpy as np

    shape = child.shape[1:]
    half = ((child - parent) / 2).reshape(len(child), -1)
    half = in_blocks(half[half.any(axis=1)])
    middle = ((child + parent) / 2).sum(axis=0)
    count = len(half)
    if not count:
        return 1.0

    def difference(signs: Array) -> Array:
        moved = (signs @ half).reshape(-1, *shape)
        away = metric_of(middle + moved, scale) - metric_of(middle - moved, scale)
        return np.asarray(np.abs(away))

    seen = float(difference(np.ones((1, count)))[0])
    least = seen - 1e-9 * max(scale, seen)  # sums in another order differ in the last digits
    if count <= _EXACT:
        ways = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((difference(2.0 * ways - 1) >= least).mean())
    draw, hits = np.random.default_rng(SEED), 1
    for size in batches(FLIPS, count):
        flips = draw.integers(0, 2, (size, count), dtype=np.int8)
        hits += int((difference(2.0 * flips - 1) >= least).sum())
    return hits / (FLIPS + 1)


_LARGE = 1e6  # a score beyond any quantile: no root is found with infinity


def mcnemar(child: Bits, parent: Bits, *, confidence: float = CONFIDENCE) -> Difference:
    """The exact conditional McNemar test of two runs, two-sided (twice the smaller tail).

    Args:
        child: which images (of the same number in both) the one run has right.
        parent: which the other has.
        confidence: of the interval.

    The interval is Tango's score interval, widened where needed to the conditional one (Clopper
    and Pearson's of the share of discordant images that are the child's): so it holds zero
    wherever the exact p does not reach ``1 - confidence``, which Tango's alone does not promise.
    """
    from scipy.stats import binomtest

    wins, losses, images = int((child & ~parent).sum()), int((parent & ~child).sum()), child.size
    low, high = tango_interval(wins, losses, images, confidence=confidence)
    p, unlike = 1.0, wins + losses
    if unlike:
        exact = binomtest(wins, unlike)
        # Plain numbers: what is compared with numpy's is numpy's bool, which JSON does not know.
        p, share = float(exact.pvalue), exact.proportion_ci(confidence, "exact")
        narrow, wide = (100 * (2 * float(end) - 1) * unlike / images for end in share)
        low, high = min(low, narrow), max(high, wide)
    diff = 100 * (wins - losses) / images
    method = f"exact McNemar test on {images} test images, {unlike} of them discordant"
    return Difference(diff, Interval(low, high), p, None, method)


def tango_interval(
    wins: int, losses: int, images: int, *, confidence: float = CONFIDENCE
) -> Interval:
    """Tango's score interval, in points, of a difference of paired proportions (Tango 1998):
    ``wins`` are the images that only the one has right, ``losses`` those that only the other has.
    """
    from scipy.optimize import brentq

    z = t_quantile(math.inf, confidence)
    centre = (wins - losses) / images

    def score(delta: float) -> float:
        linear = (2 * images - wins + losses) * delta - wins - losses
        constant = -losses * delta * (1 - delta)
        root = math.sqrt(max(0.0, linear * linear - 8 * images * constant))
        nuisance = (root - linear) / (4 * images)
        spread = images * (2 * nuisance + delta * (1 - delta))
        gap = images * (centre - delta)
        # At the very ends the constrained variance is zero.
        return gap / math.sqrt(spread) if spread > 0 else math.copysign(_LARGE, gap) * (gap != 0)

    low = -1.0 if centre == -1 else brentq(lambda d: score(d) - z, -1.0, centre, xtol=1e-10)
    high = 1.0 if centre == 1 else brentq(lambda d: score(d) + z, centre, 1.0, xtol=1e-10)
    return Interval(100 * low, 100 * high)
