"""The effect of each step: tested differences, as a table that terminal, files and page share; and
the effect size that such a test detects in most studies of the same size."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from convnext_study.errors import UserError
from convnext_study.results.compare import Comparison, compare, holm_adjust
from convnext_study.results.grouping import RunGroup
from convnext_study.results.metric_spec import UNNAMED, MetricSpec
from convnext_study.results.rows import ResultRow, count_seeds
from convnext_study.results.statistics.intervals import (
    Interval,
    PooledStd,
    homogeneity,
    pool_std,
)
from convnext_study.results.statistics.power import POWER, detectable_effect
from convnext_study.results.subset_results import SubsetResults

FEW_GROUPS = 20  # of test images, below which even a t interval over them is rough


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The effect of a step (a pair, a section) on the metric, in its unit, and on MACs per image.

    ``diff`` is above 0 for the better, whatever the metric's direction. ``interval`` is its 95 %
    interval, None where its noise was not measured. ``p`` is of this comparison alone,
    ``p_adjusted`` is Holm's over the table, and ``significant`` whether that is 0.05 or less; None
    where nothing was tested. ``value``, ``network_macs`` and ``seeds`` describe the network that
    was trained for it, where there is one.
    """

    name: str
    label: str
    diff: float
    macs: float
    interval: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    significant: bool | None = None
    value: float | None = None
    network_macs: int | None = None
    seeds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Effects:
    """A table of effects: ``effect_label`` names the differences of ``metric``, ``total`` is their
    sum."""

    kind: str
    title: str
    effect_label: str
    rows: tuple[Effect, ...] = ()
    notes: tuple[str, ...] = ()
    total: Effect | None = None
    metric: MetricSpec = UNNAMED


def noise_notes(results: SubsetResults, *, pooled: bool = False) -> tuple[str, ...]:
    """What the intervals of a table cover. ``pooled``: they use the standard deviation between
    seeds of all networks."""
    std, metric = results.std, results.metric
    if std is None:
        noise = (
            "One seed: intervals are for another choice of test images only. They do not include "
            "what another seed would change, and nothing is called significant."
        )
    elif pooled:
        noise = (
            f"Intervals use a standard deviation between seeds of {std.std:.{metric.decimals}f} "
            f"{metric.step_unit}, pooled over {std.source} of this folder ({std.df:g} degrees of "
            "freedom) that share recipe, data and code."
        )
    else:
        noise = "Welch's t test on seeds, with Holm's correction over this table."
    direction = f"Above 0 is better: a lower {metric.label}."
    return (*([] if metric.higher_is_better else [direction]), noise, *results.excluded)


@dataclass(frozen=True)
class RowTests:
    """Tests of each row against its parent, by the row's name.

    ``primary`` is Welch's t test on seeds with Holm's correction over these rows; it alone decides
    what is significant. ``pooled`` is secondary: the same differences with the standard deviation
    between seeds ``std`` of the whole study, Holm-adjusted among themselves; ``homogeneity`` is p
    of Levene's test (about medians) that all rows have one standard deviation. ``whole`` compares
    the last adopted row with the first, tested alone.
    """

    primary: dict[str, Comparison]
    pooled: dict[str, Comparison]
    std: PooledStd | None
    homogeneity: float | None
    whole: Comparison | None

    @property
    def tested(self) -> dict[str, Comparison]:
        """The rows with enough seeds for a test."""
        return {name: test for name, test in self.primary.items() if test.significant is not None}

    def significant(self, name: str) -> bool | None:
        """Whether a row's change is significant; None where it was not tested."""
        return self.primary[name].significant if name in self.primary else None


def tests_of(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> RowTests:
    """Test every row that has a gain over its parent."""
    poolable = pooled_rows(_poolable(rows, groups))
    std = pooled_std(poolable, "rows of this study")
    pairs = {row.name: row.parent for row in rows if row.gain is not None and row.parent}
    primary, pooled = {}, {}
    for name, parent in pairs.items():
        if comparison := compare_groups(groups[name], groups[parent]):
            primary[name] = comparison
        if std and (comparison := compare_groups(groups[name], groups[parent], std)):
            pooled[name] = comparison
    return RowTests(
        holm_adjust(primary),
        holm_adjust(pooled),
        std,
        homogeneity([list(row.seeds.values()) for row in poolable]),
        _end_to_end(rows, groups),
    )


def compare_groups(
    child: RunGroup, parent: RunGroup, std: PooledStd | None = None
) -> Comparison | None:
    """None where the records do not allow a comparison, as with other test images."""
    try:
        return compare(child.seeds.values(), parent.seeds.values(), std=std)
    except UserError:
        return None


def _poolable(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> list[ResultRow]:
    """Rows that may be pooled: of one code and recipe, and those that may be compared with them.

    Of several such sets, the one with most rows.
    """
    kinds = {row.name: _conditions(groups[row.name]) for row in rows}
    for row in rows:  # a row that is compared with its parent joins its set
        if row.gain is not None and row.parent in kinds:
            own, parent = kinds[row.name], kinds[row.parent]
            kinds = {name: parent if kind == own else kind for name, kind in kinds.items()}
    several = [row for row in rows if len(row.seeds) > 1]
    most = Counter(kinds[row.name] for row in several).most_common(1)
    return [row for row in several if kinds[row.name] == most[0][0]]


def _conditions(group: RunGroup) -> str:
    recipe = {name: value for name, value in group.run.recipe.items() if name != "name"}
    return json.dumps([group.code, recipe], sort_keys=True)


def _end_to_end(rows: Sequence[ResultRow], groups: Mapping[str, RunGroup]) -> Comparison | None:
    """The last row against the first, where each adopted row was compared with the one before."""
    road = [row for row in rows if row.adopted]
    linked = all(row.gain is not None for row in road[1:])
    if len(road) < 3 or not linked or any(row.parent is None for row in road[1:]):
        return None
    return compare_groups(groups[road[-1].name], groups[road[0].name])


def pooled_std(rows: Iterable[ResultRow], what: str) -> PooledStd | None:
    """The standard deviation between seeds, pooled over rows of one metric on the same data.

    Of several metrics or data sets, those that most rows with two seeds share. None without such
    a row. ``what`` names the rows in `PooledStd.source`.
    """
    poolable = pooled_rows(rows)
    if not poolable:
        return None
    return pool_std(
        [list(row.seeds.values()) for row in poolable],
        f"{len(poolable)} {what}",
        resolution=poolable[0].resolution,
    )


def pooled_rows(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """The rows with two seeds or more, of the most common metric, data and test images."""
    several = [row for row in rows if len(row.seeds) > 1]
    kinds = [(row.metric.name, row.data_id or row.data, row.val_images) for row in several]
    kept = max(kinds, key=kinds.count, default=None)
    return [row for row, kind in zip(several, kinds, strict=True) if kind == kept]


def detectable_note(rows: Sequence[ResultRow]) -> str:
    """What the primary test could detect among these rows, in a sentence or two."""
    finished = [row for row in rows if row.value is not None and row.val_images]
    if not finished:
        return "No run is finished yet, so there is nothing to compare."
    names = Counter(row.metric.name for row in finished).most_common(1)
    finished = [row for row in finished if row.metric.name == names[0][0]]
    compared = [row for row in finished if row.gain is not None]
    tested = [row for row in compared if row.significant is not None]
    std = pooled_std(finished, "rows of this study")
    if not tested or std is None:
        if not compared:
            return "None of these rows is compared with another, so nothing is tested."
        groups = min((row.image_groups for row in finished if row.image_groups), default=None)
        drawn = "test images" if groups is None else f"the {groups} groups of test images"
        few = "; with so few, they are rough" if groups and groups < FEW_GROUPS else ""
        alone = max(len(row.seeds) for row in finished) == 1
        few_seeds = "One seed per row" if alone else "No two compared rows have two seeds each"
        return (
            f"{few_seeds}, so nothing is tested and nothing is called significant: intervals "
            f"are for another choice of {drawn}{few}. Train three seeds or more to test the steps."
        )
    metric, seeds = finished[0].metric, min(len(row.seeds) for row in tested)
    effect = detectable_effect(seeds, std.std, tests=len(tested))
    note = (
        f"With {count_seeds(tested)} and a standard deviation between seeds of "
        f"{_text(std.std, metric)}, Welch's t test with Holm's correction over {len(tested)} "
        f"steps detects a true difference of {_text(effect, metric, fewer=1)} in "
        f"{100 * POWER:.0f} % of studies."
    )
    if seeds == 2:
        note += " Two seeds find next to nothing; three find most large steps."
    return note


def _text(value: float, metric: MetricSpec, fewer: int = 0) -> str:
    return f"{value:.{max(metric.decimals - fewer, 0)}f} {metric.step_unit}".rstrip()
