"""Two networks on the same test images: on which images do they differ?"""

from __future__ import annotations

import math
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


_LARGE = 1e6  # a score beyond any quantile: no root is found with infinity


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
    from scipy.stats import binomtest

    low, high = tango_interval(counts, confidence=confidence)
    wins, losses = counts.child_only, counts.parent_only
    p, unlike = 1.0, wins + losses
    if unlike:
        exact = binomtest(wins, unlike)
        # Plain numbers: what is compared with numpy's is numpy's bool, which JSON does not know.
        p, share = float(exact.pvalue), exact.proportion_ci(confidence, "exact")
        narrow, wide = (100 * (2 * float(end) - 1) * unlike / counts.images for end in share)
        low, high = min(low, narrow), max(high, wide)
    diff = 100 * (wins - losses) / counts.images
    method = f"exact McNemar test on {counts.images} test images, {unlike} of them discordant"
    return Difference(diff, Interval(low, high), p, None, method)


def tango_interval(counts: Discordant, *, confidence: float = CONFIDENCE) -> Interval:
    """Tango's score interval, in points, of a difference of paired proportions (Tango 1998)."""
    from scipy.optimize import brentq

    wins, losses, images = counts.child_only, counts.parent_only, counts.images
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
