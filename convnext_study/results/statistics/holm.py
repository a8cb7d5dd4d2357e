"""Holm's correction for several tests that are made together."""

from __future__ import annotations

from collections.abc import Sequence


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p values, in the order given (Holm 1979).

    Calling those at or below alpha different flags one or more true zeros with a probability of at
    most alpha, however the tests depend on each other.
    """
    corrected = [1.0] * len(ps)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = largest
    return corrected
