"""What a study could detect: the effect that its own test finds in most studies of its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow, count_seeds
from convnext_study.results.statistics.intervals import PooledStd, pool_std
from convnext_study.results.statistics.power import POWER, detectable_effect

FEW_GROUPS = 20  # of test images, below which even a t interval over them is rough


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


def detectable_note(rows: Sequence[ResultRow]) -> str:
    """What the primary test could find among these rows, in a sentence or two."""
    done = [row for row in rows if row.value is not None and row.val_images]
    if not done:
        return "No run is done yet, so there is nothing to compare."
    names = Counter(row.metric.name for row in done).most_common(1)
    done = [row for row in done if row.metric.name == names[0][0]]
    compared = [row for row in done if row.gain is not None]
    tested = [row for row in compared if row.significant is not None]
    std = pooled_std(done, "rows of this study")
    if not tested or std is None:
        if not compared:
            return "No two of these rows are compared, so nothing is tested."
        groups = min((row.image_groups for row in done if row.image_groups), default=None)
        drawn = "test images" if groups is None else f"the {groups} groups of test images"
        few = "; so few make them rough" if groups and groups < FEW_GROUPS else ""
        return (
            "One seed per row, so nothing is tested and nothing is called significant: intervals "
            f"are for another choice of {drawn}{few}. Train three seeds or more to test the steps."
        )
    metric, seeds = done[0].metric, min(len(row.seeds) for row in tested)
    effect = detectable_effect(seeds, std.std, tests=len(tested))
    note = (
        f"With {count_seeds(tested)} and a standard deviation between seeds of "
        f"{_text(std.std, metric)}, Welch's t test with Holm's correction over {len(tested)} steps "
        f"finds a true difference of {_text(effect, metric, fewer=1)} in {100 * POWER:.0f} % of "
        "studies."
    )
    if seeds == 2:
        note += " Two seeds find next to nothing: three find most large steps."
    return note


def _text(value: float, metric: MetricSpec, fewer: int = 0) -> str:
    return f"{value:.{max(metric.decimals - fewer, 0)}f} {metric.step_unit}".rstrip()
