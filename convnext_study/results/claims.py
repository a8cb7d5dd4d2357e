"""Claims about pairs of rows, tested for difference and equivalence, all corrected together.

"As good as" is not a failed test of difference: it takes an equivalence test with a margin that is
stated beforehand. Its null hypothesis is a difference of the margin or more, and its p the larger
one of two one-sided tests (TOST, Schuirmann 1987): at most alpha exactly where the ``1 - 2 alpha``
interval lies within the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from convnext_study.errors import UserError
from convnext_study.results.compare import ALPHA, Comparison, compare, holm_adjust
from convnext_study.results.statistics.intervals import holm
from convnext_study.runs.metrics import Metric
from convnext_study.runs.records import Record

_COMPARED = "compared"  # the key of the metric that is compared


def tost(diff: float, error: float, df: float, margin: float) -> float:
    """p of two one-sided t tests of a difference with its standard error.

    Args:
        diff: of two means.
        error: its standard error.
        df: degrees of freedom of the error (normal if inf).
        margin: above 0; the smallest difference that would matter.
    """
    from scipy.special import ndtr, stdtr

    if margin <= 0:
        raise UserError(f"margin: {margin}; use the smallest difference that matters, above 0")
    if error == 0:
        return 1.0  # the noise was not measured
    nearest = -(margin - abs(diff)) / error
    return float(ndtr(nearest) if math.isinf(df) else stdtr(df, nearest))


def with_metric(record: Record, metric: Metric) -> Record:
    """A finished run's record with this metric as its primary one, under one name for all rows.

    For metrics that are no run's primary one: an exit's, or a difference between two runs.
    """
    assert record.result is not None  # noqa: S101  a finished run's
    update = {"metrics": {**record.result.metrics, _COMPARED: metric}, "primary": _COMPARED}
    return record.model_copy(update={"result": record.result.model_copy(update=update)})


Row = TypeVar("Row")


@dataclass(frozen=True)
class Pair(Generic[Row]):
    """Two rows, and the question that their difference answers, first minus second."""

    first: Row
    second: Row
    question: str


@dataclass(frozen=True)
class PairTest(Pair[Row]):
    """A pair and its test; p and ``p_equivalent`` (of the equivalence test) are Holm-adjusted over
    all pairs. Without a ``margin`` equivalence was not tested."""

    comparison: Comparison
    p_equivalent: float = 1.0
    margin: float | None = None

    @property
    def is_equivalent(self) -> bool:
        """Whether the difference is significantly smaller than the margin."""
        return self.margin is not None and self.p_equivalent <= ALPHA

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``within 1``, two of these, or ``open``."""
        better = self.comparison.difference.diff * self.comparison.metric.sign > 0
        differs = ("better" if better else "worse") if self.comparison.significant else ""
        equivalent = f"within {self.margin:g}" if self.is_equivalent else ""
        return ", ".join(filter(None, (differs, equivalent))) or "open"


def compare_pairs(
    pairs: Sequence[Pair[Row]],
    records_of: Callable[[Row], Sequence[Record]],
    margin: float | None = None,
) -> list[PairTest[Row]]:
    """Test every pair by Welch's t test on seeds, with Holm's correction over all of them.

    Args:
        pairs: to compare.
        records_of: returns the records of a row.
        margin: of the equivalence tests, in the metric's unit; None skips them.

    Raises UserError as `compare` does.
    """
    tests = [compare(records_of(pair.first), records_of(pair.second)) for pair in pairs]
    adjusted = holm_adjust(dict(enumerate(tests)))
    p_equivalent = [1.0] * len(pairs)
    if margin is not None:
        differences = [test.difference for test in tests]
        p_equivalent = holm([tost(d.diff, d.error, d.df or math.inf, margin) for d in differences])
    return [
        PairTest(pair.first, pair.second, pair.question, adjusted[i], p_equivalent[i], margin)
        for i, pair in enumerate(pairs)
    ]
