"""From the evidence in results to numbers: what another choice of test images would change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import (
    Difference,
    Interval,
    wilson_interval,
)
from convnext_study.results.statistics.paired_samples import answers_difference, samples_difference
from convnext_study.results.statistics.samples import (
    FEW_UNITS,
    SampleSums,
    bootstrap_interval,
    grouped_wilson,
    jackknife_interval,
    sample_sums,
)

if TYPE_CHECKING:
    from convnext_study.runs.metrics import Metric, Samples
    from convnext_study.runs.records import Result


@dataclass(frozen=True, kw_only=True)
class ImageNoise:
    """What the choice of test images may change in a mean over seeds, in the metric's unit.

    ``interval`` is of 95 %, found by ``method``; None where the metric has no evidence. ``groups``:
    of images that are not independent, None without.
    """

    interval: Interval | None = None
    method: str = ""
    groups: int | None = None


def image_noise(results: Sequence[Result]) -> ImageNoise:
    """Of one network's results: Wilson's interval for right and wrong answers, else a bootstrap;
    images of one group are drawn together, by a t interval where groups are few."""
    import numpy as np

    sums = evidence(results)
    samples = results[0].metric.samples
    if sums is None or samples is None or samples.count < 1:
        return ImageNoise()
    groups = samples.group_array()
    count = sums.units if sums.grouped else None
    if groups is not None and sums.units < FEW_UNITS:
        interval, method = jackknife_interval(sums), "t, over groups"
    elif samples.kind != "bits":
        interval = bootstrap_interval(sums)
        method = "bootstrap over groups" if sums.grouped else "bootstrap"
    elif groups is None:
        share = sums.value() / 100
        interval, method = wilson_interval(share * samples.count, samples.count), "Wilson"
    else:
        right = np.mean([one.metric.samples.array() for one in results if one.metric.samples], 0)
        interval, method = grouped_wilson(right, groups), "Wilson, by groups"
    if math.isinf(interval.low):
        return ImageNoise(groups=count)
    return ImageNoise(interval=interval, method=method, groups=count)


def evidence(results: Sequence[Result]) -> SampleSums | None:
    """The sums of the primary metric's samples; None unless all results have them, alike."""
    samples = [one.metric.samples for one in results]
    kept = [one for one in samples if one is not None]
    first = kept[0] if kept else None
    if first is None or len(kept) < len(samples):
        return None
    if any(_shape(one) != _shape(first) for one in kept):
        return None
    return sample_sums(first.kind, [one.array() for one in kept], first.group_array())


def resolution_of(metric: Metric) -> float:
    """By how much one test image changes a metric that counts; 0 for others."""
    samples = metric.samples
    return 100 / samples.count if samples is not None and samples.kind == "bits" else 0.0


def compare_runs(child: Result, parent: Result) -> Difference:
    """One run of each of two networks: the difference and its interval for other test images.

    Nothing is tested, since one run tells nothing of another seed. Raises UserError where there is
    no evidence, or of other images.
    """
    mine, its = child.metric.samples, parent.metric.samples
    if mine is None or its is None:
        raise UserError(
            f"{child.metric.label}: no record of single test images; train two seeds or more"
        )
    if _shape(mine) != _shape(its):
        raise UserError(
            f"{mine.count} and {its.count} test images cannot be paired: use the same data"
        )
    if mine.kind == "bits" and mine.groups is None:
        return answers_difference(mine.array(), its.array())
    sums = [sample_sums(one.kind, [one.array()], one.group_array()) for one in (mine, its)]
    return samples_difference(*sums)


def _shape(samples: Samples) -> tuple[str, int, int, str | None]:
    """What two networks' evidence must have in common."""
    return samples.kind, samples.count, samples.classes, samples.groups
