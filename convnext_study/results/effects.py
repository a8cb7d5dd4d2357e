"""What each step is worth, as a table that terminal, files and page show alike."""

from __future__ import annotations

from dataclasses import dataclass

from convnext_study.results.metric_spec import UNNAMED, MetricSpec
from convnext_study.results.statistics import Interval
from convnext_study.results.subset_results import SubsetResults


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a step (a pair, a section) changes: the metric in its unit, MACs of one image.

    ``diff`` is above 0 for the better, whatever the metric's direction. ``interval`` is its 95 %
    interval, None where nothing measured its noise. ``p`` is
    of this comparison alone, ``p_adjusted`` Holm's over the table. ``significant``: p_adjusted is
    0.05 or less; where there is no p, the interval excludes zero. ``value``, ``network_macs`` and
    ``seeds`` are of the network that was trained for it, where there is one.
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
    """A table: ``effect_label`` says what the differences of ``metric`` are, ``total`` what they
    add up to."""

    kind: str
    title: str
    effect_label: str
    rows: tuple[Effect, ...] = ()
    notes: tuple[str, ...] = ()
    total: Effect | None = None
    metric: MetricSpec = UNNAMED


def noise_notes(results: SubsetResults, test: str = "") -> tuple[str, ...]:
    """What the intervals of a table cover; ``test`` is that of single runs, where there is one."""
    std, metric = results.std, results.metric
    if std is None:
        alone = (
            f"each pair is tested by its own runs ({test}), which covers the choice of test images "
            "only. W"
            if test
            else "w"
        )
        noise = f"One seed: {alone}hat another seed would change takes several seeds."
    else:
        noise = (
            f"The standard deviation between seeds is {std.std:.{metric.decimals}f} "
            f"{metric.step_unit}, pooled over "
            f"{std.source} of this folder ({std.df:g} degrees of freedom) that share recipe, "
            "data and code."
        )
    better = f"Above 0 is for the better: a lower {metric.label}."
    return (*([] if metric.higher_is_better else [better]), noise, *results.excluded)
