"""Two networks on the same test images: on which images do they differ?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import (
    CONFIDENCE,
    Difference,
    Interval,
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
