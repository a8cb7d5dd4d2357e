"""Whether two networks are as good as each other: two one-sided tests (Schuirmann 1987).

That a difference is not significant says nothing of the kind. Here the null hypothesis is that it
is as large as the margin, or larger: p is the larger one of both sides' tests. It is at most alpha
just where the ``1 - 2 alpha`` interval lies within the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import Interval

_SMALLEST = 1e-9  # p values that intervals are looked at for


def tost(diff: float, error: float, df: float, margin: float) -> float:
    """p of two one-sided t tests of a difference with its standard error.

    Args:
        diff: of two means.
        error: its standard error.
        df: degrees of freedom of the error (normal if inf).
        margin: above 0; a difference as large as it would matter.
    """
    from scipy.special import ndtr, stdtr

    if margin <= 0:
        raise UserError(f"margin: {margin}; use a difference above 0 that would matter")
    if error == 0:
        return 1.0  # nothing has measured the noise
    nearest = -(margin - abs(diff)) / error
    return float(ndtr(nearest) if math.isinf(df) else stdtr(df, nearest))


def tost_by_interval(interval_at: Callable[[float], Interval], margin: float) -> float:
    """The same p from intervals of any test: the least alpha whose interval lies within.

    Args:
        interval_at: of a confidence between 0 and 1; wider ones hold narrower ones.
        margin: as in `tost`.

    Returns:
        1 where not even a narrow interval lies within; `_SMALLEST` where all of them do.
    """
    from scipy.optimize import brentq

    if margin <= 0:
        raise UserError(f"margin: {margin}; use a difference above 0 that would matter")

    def room(alpha: float) -> float:
        low, high = interval_at(1 - 2 * alpha)
        # Unbounded ones would be no number that a root is found with.
        return max(min(margin - high, low + margin), -1e6)

    largest = 0.5 - _SMALLEST
    if room(largest) <= 0:
        return 1.0
    if room(_SMALLEST) > 0:
        return _SMALLEST
    return float(brentq(room, _SMALLEST, largest, xtol=1e-9))
