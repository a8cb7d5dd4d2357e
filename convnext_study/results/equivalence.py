"""Whether two rows are as good as each other, within a margin, by the test that fits their runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convnext_study.results.compare import Comparison
from convnext_study.results.evidence import compare_runs
from convnext_study.results.statistics.equivalence import tost, tost_by_interval
from convnext_study.results.statistics.intervals import t_quantile
from convnext_study.runs.records import Record


def equivalence_p(
    comparison: Comparison, child: Sequence[Record], parent: Sequence[Record], margin: float
) -> float:
    """p of two one-sided tests (TOST) that the difference is the margin or more.

    Args:
        comparison: of these two, by `compare`.
        child: finished runs of the one row.
        parent: of the other.
        margin: in the metric's unit, above 0.

    Raises UserError for a margin that is none.
    """
    found = comparison.difference
    if found.df is None:  # one run of each on the same test images
        mine, its = ({one.run.seed: one.result for one in rows} for rows in (child, parent))
        shared = sorted(mine.keys() & its.keys())
        one, other = (
            next(runs[seed] for seed in (*shared, *sorted(runs)) if runs[seed])
            for runs in (mine, its)
        )
        if one is None or other is None:
            return 1.0
        return tost_by_interval(
            lambda confidence: compare_runs(one, other, confidence=confidence).interval, margin
        )
    low, high = found.interval
    half = (high - low) / 2
    error = 0.0 if math.isinf(half) else half / t_quantile(found.df, 1 - comparison.alpha)
    return tost(found.diff, error, found.df, margin)
