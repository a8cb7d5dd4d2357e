"""Two networks on the same test images: on which images do they differ?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
    t_difference,
    t_quantile,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Discordant:
    """How many of ``images`` only the child, and only the parent, has right."""

    child_only: int
    parent_only: int
    images: int


def discordant(child: Bits, parent: Bits) -> Discordant:
    """What McNemar's test looks at. Raises UserError for unlike numbers of images."""
    if child.shape != parent.shape:
        raise UserError(
            f"{child.size} and {parent.size} test images cannot be paired: use the same data"
        )
    return Discordant(int((child & ~parent).sum()), int((parent & ~child).sum()), child.size)


def mcnemar(counts: Discordant, *, confidence: float = CONFIDENCE) -> Difference:
    """The exact conditional McNemar test of two runs, two-sided (twice the smaller tail).

    The interval is Tango's score interval, widened where needed to the conditional one (Clopper
    and Pearson's of the share of discordant images that are the child's): so it holds zero
    wherever the exact p does not reach ``1 - confidence``, which Tango's alone does not promise.
    """
    from scipy.special import bdtr

    low, high = tango_interval(counts, confidence=confidence)
    wins, losses = counts.child_only, counts.parent_only
    p, unlike = 1.0, wins + losses
    if unlike:
        p = min(1.0, 2 * float(bdtr(min(wins, losses), unlike, 0.5)))
        share = _clopper_pearson(wins, unlike, confidence)
        narrow, wide = (100 * (2 * end - 1) * unlike / counts.images for end in share)
        low, high = min(low, narrow), max(high, wide)
    diff = 100 * (wins - losses) / counts.images
    method = f"exact McNemar test on {counts.images} test images, {unlike} of them discordant"
    return Difference(diff, Interval(low, high), p, None, method)


def tango_interval(counts: Discordant, *, confidence: float = CONFIDENCE) -> Interval:
    """Tango's score interval, in points, of a difference of paired proportions (Tango 1998)."""
    wins, losses, images = counts.child_only, counts.parent_only, counts.images
    z = t_quantile(math.inf, confidence)
    centre = (wins - losses) / images

    def score(delta: float) -> float:
        linear = (2 * images - wins + losses) * delta - wins - losses
        constant = -losses * delta * (1 - delta)
        root = math.sqrt(max(0.0, linear * linear - 8 * images * constant))
        nuisance = (root - linear) / (4 * images)
        spread = images * (2 * nuisance + delta * (1 - delta))
        gap = wins - losses - images * delta
        # At the very ends the constrained variance is zero.
        return gap / math.sqrt(spread) if spread > 0 else math.copysign(math.inf, gap)

    low = -1.0 if centre == -1 else _bisect(lambda delta: score(delta) - z, -1.0, centre)
    high = 1.0 if centre == 1 else _bisect(lambda delta: score(delta) + z, centre, 1.0)
    return Interval(100 * low, 100 * high)


def seeds_and_images(
    child: Sequence[Bits], parent: Sequence[Bits], *, confidence: float = CONFIDENCE
) -> Difference:
    """The difference over shared seeds, with both seeds and test images as drawn by chance.

    Each seed's child and parent see each image, so the differences (1, 0 or -1) fill a table of
    seeds by images. The variance of its mean comes from the mean squares of a crossed two-way
    analysis without replication, and the degrees of freedom are Hillis's (Dorfman, Berbaum and
    Metz 1992; Hillis 2007, for readers and cases). Where images add nothing it is the paired t
    test over seeds. As there, seeds are taken to deviate by one image at least.
    """
    import numpy as np

    if len(child) != len(parent) or len(child) < 2:
        raise UserError(f"{len(child)} and {len(parent)} runs: two or more shared seeds are due")
    for mine, its in zip(child, parent, strict=True):
        discordant(mine, its)
    table = np.stack(child).astype(float) - np.stack(parent).astype(float)
    seeds, images = table.shape
    if images < 2:
        raise UserError("one test image tells nothing of another: use more")
    mean = table.mean()
    by_seed, by_image = table.mean(axis=1), table.mean(axis=0)
    of_seeds = images * max(by_seed.var(ddof=1), 1 / images**2)
    of_images = seeds * by_image.var(ddof=1)
    rest = table - by_seed[:, None] - by_image[None, :] + mean
    of_rest = (rest**2).sum() / ((seeds - 1) * (images - 1))
    spread = of_seeds + max(of_images - of_rest, 0.0)
    df = spread**2 / (of_seeds**2 / (seeds - 1))
    error = 100 * math.sqrt(spread / (seeds * images))
    method = (
        f"seeds crossed with test images ({seeds} by {images}), both random "
        "(Dorfman-Berbaum-Metz with Hillis's degrees of freedom)"
    )
    return t_difference(100 * float(mean), error, float(df), method, confidence)


def _clopper_pearson(count: int, total: int, confidence: float) -> Interval:
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Interval(low, high)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, to 1e-10."""
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
