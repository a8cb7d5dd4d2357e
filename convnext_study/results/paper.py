"""What the paper's tables say of a study: the deviation between seeds, and whether its rows, and
its steps' gains, stand in the paper's order (Tables 10 and 11)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from convnext_study.errors import UserError
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.statistics.intervals import CONFIDENCE, PooledStd
from convnext_study.results.statistics.rank_agreement import METHOD, Correlation, kendall
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.paper import LABEL, METRIC, PAPER, UNIT

PAPER_METRIC = MetricSpec(name=METRIC, label=LABEL, unit=UNIT)
TABLES = {"t": "Table 10", "b": "Table 11"}
CAVEAT = (
    "The paper's numbers are ImageNet-1K accuracies; another data set, size of network or recipe "
    "need not agree with them. Rows build on each other and neighbouring gains share a row, so the "
    "interval and p are a guide, not a proof."
)
_SEEDS = 3  # of each row of Table 10


def paper_std() -> PooledStd:
    """The standard deviation between seeds that Table 10 gives, pooled over its rows.

    The table does not say whether its standard deviations divide by n or n - 1; n - 1 is assumed.
    """
    printed = [row.std for row in PAPER["t"].values() if row.std is not None]
    diff = math.sqrt(fmean(std**2 for std in printed))
    source = f"{len(printed)} rows of the paper's Table 10 ({_SEEDS} seeds each, ImageNet-1K)"
    return PooledStd(diff, len(printed) * (_SEEDS - 1), source)


@dataclass(frozen=True)
class Agreement:
    """Rank correlations with a table of the paper: of the rows, and of each row's gain.

    None stands for fewer than three numbers to order, or numbers that are all alike.
    """

    table: str
    rows: Correlation | None
    gains: Correlation | None
    method: str = METHOD
    caveat: str = CAVEAT


def agreement(
    regime: str,
    value: Mapping[str, float],
    *,
    table: str | None = None,
    confidence: float = CONFIDENCE,
) -> Agreement:
    """Compare measured accuracies (percent, by the name of the row) with a table of the paper.

    ``table`` is ``t`` (Table 10) or ``b`` (Table 11): the regime's own if not given, ``t`` for a
    road map that the paper does not have, whose rows are matched by their place on the road. Rows
    that were not measured are left out, and so is a gain where either of its rows is missing.
    """
    table = table or (regime if regime in PAPER else "t")
    if table not in PAPER:
        raise UserError(f"{table}: the paper has no such table; give one of {', '.join(PAPER)}")
    diff, theirs = get_roadmap(regime).variants(), get_roadmap(table).variants()
    printed = {
        mine.name: PAPER[table][its.name].top1 for mine, its in zip(diff, theirs, strict=True)
    }
    measured = [point for point in diff if point.name in value]
    rows = [(value[point.name], printed[point.name]) for point in measured]
    gains = [
        (value[point.name] - value[parent], printed[point.name] - printed[parent])
        for point in measured
        if (parent := point.parent) is not None and parent in value
    ]
    return Agreement(
        table=TABLES[table],
        rows=_correlation(rows, confidence),
        gains=_correlation(gains, confidence),
    )


def _correlation(pairs: Sequence[tuple[float, float]], confidence: float) -> Correlation | None:
    try:
        return kendall(
            [mine for mine, _ in pairs], [its for _, its in pairs], confidence=confidence
        )
    except UserError:
        return None
