"""The smallest difference between two networks that can be detected."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow, count_seeds
from convnext_study.results.statistics.intervals import CONFIDENCE, PooledStd, pool_std, t_quantile


def pooled_std(rows: Iterable[ResultRow], of: str) -> PooledStd | None:
    """The standard deviation between seeds, pooled over rows of one metric on the same data.

    Of several metrics or data sets it is what most of the rows with two seeds share. None where
    there is no such row. ``of`` says what they are, for the source.
    """
    alike = pooled_rows(rows)
    if not alike:
        return None
    return pool_std(
        [list(row.seeds.values()) for row in alike],
        f"{len(alike)} {of}",
        resolution=alike[0].resolution,
    )


def pooled_rows(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """The rows with two seeds or more that most share metric, data and test images with."""
    several = [row for row in rows if len(row.seeds) > 1]
    kinds = [(row.metric.name, row.data_id or row.data, row.val_images) for row in several]
    kept = max(kinds, key=kinds.count, default=None)
    return [row for row, kind in zip(several, kinds, strict=True) if kind == kept]


def min_detectable_difference(rows: Sequence[ResultRow]) -> float | None:
    """The smallest difference of two rows, in their metric's unit, that 95 % noise would not
    explain.

    Two rows are taken as independent draws of test images, which is careful: they share them. The
    seeds' standard deviation comes on top where it is known. None while nothing is done, or
    nothing has measured any noise.
    """
    done = _comparable(rows)
    errors = [row.image_error for row in done if row.image_error is not None]
    pooled = pooled_std(done, "rows of this study")
    if not errors and pooled is None:
        return None
    from_images = 0.0
    if errors:
        from_images = t_quantile(math.inf, CONFIDENCE) * math.sqrt(2) * statistics.median(errors)
    if pooled is None:
        return from_images
    count = min(len(row.seeds) for row in done)
    from_seeds = t_quantile(pooled.df, CONFIDENCE) * pooled.std * math.sqrt(2 / count)
    return math.hypot(from_images, from_seeds)


def noise_note(rows: Sequence[ResultRow]) -> str:
    """The smallest detectable difference of the table, in one sentence or two."""
    done = _comparable(rows)
    if not done:
        return "No run is done yet, so there is nothing to compare."
    metric, diff = done[0].metric, min_detectable_difference(rows)
    if diff is None:
        return (
            f"Nothing has measured the noise of {metric.label}: its runs keep no record of single "
            "test images, and no network has two seeds."
        )
    pooled = pooled_std(done, "rows of this study")
    spread = f" (standard deviation between seeds {_text(pooled.std, metric)})" if pooled else ""
    note = (
        f"With {min(row.val_images or 0 for row in done)} test images and "
        f"{count_seeds(done)}{spread}, "
        f"differences under {_text(diff, metric, fewer=1)} are not significant."
    )
    if groups := {row.image_groups for row in done if row.image_groups}:
        note += (
            f" The test images come in {min(groups)} groups and count as that many draws: images "
            "of one group are not independent."
        )
    if pooled is None:
        note += " What another seed would change is not in that number: it takes several seeds."
    elif all(row.image_error is None for row in done):
        note += " What other test images would change is not in that number."
    return note


def _comparable(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The finished rows of the metric that most of them have."""
    done = [row for row in rows if row.value is not None and row.val_images]
    names = Counter(row.metric.name for row in done).most_common(1)
    return [row for row in done if row.metric.name == names[0][0]]


def _text(value: float, metric: MetricSpec, fewer: int = 0) -> str:
    return f"{value:.{max(metric.decimals - fewer, 0)}f} {metric.step_unit}".rstrip()
