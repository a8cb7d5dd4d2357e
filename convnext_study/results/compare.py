"""A step against its parent: Welch's t test on seeds, and Holm's correction over steps.

It is the one test that decides what is significant. Where a row has a single seed nothing is: there
is the interval of another choice of test images, and nothing that tells what another seed would do.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from convnext_study.errors import UserError
from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.results.statistics.intervals import (
    Difference,
    Interval,
    PooledStd,
    holm,
    pooled_difference,
    welch_difference,
    wilson_interval,
)
from convnext_study.results.statistics.paired_samples import (
    answers_difference,
    samples_difference,
    seeds_and_images,
)
from convnext_study.results.statistics.samples import (
    FEW_UNITS,
    SampleSums,
    bootstrap_interval,
    grouped_wilson,
    jackknife_interval,
    sample_sums,
)
from convnext_study.runs.fingerprints import difference, fingerprint_of
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.runs.records import Record, Result

ALPHA = 0.05
IMAGES_ONLY = "test images only, not seeds"
FEWEST_CROSSED = 3  # seeds, to cross with test images

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A step's difference to its parent, and whether it is significant.

    ``difference`` has unit, interval and p of this comparison alone, child minus parent whatever
    the direction of ``metric``; ``p_adjusted`` is Holm's over the ``family`` comparisons made
    together, and it alone decides; it is None where a row has one seed. ``scope`` says what the
    test takes to vary. ``new_images``, for three or more shared seeds, is the same difference where
    the test images vary as well; None of a pooled test, beside which it stands already.
    """

    difference: Difference
    p_adjusted: float | None
    family: int
    scope: str
    new_images: Difference | None = None
    metric: MetricSpec = UNNAMED

    @property
    def significant(self) -> bool | None:
        """Whether the adjusted p value is at most alpha; None where it was not tested."""
        return None if self.p_adjusted is None else self.p_adjusted <= ALPHA


def compare(
    child: Iterable[Record],
    parent: Iterable[Record],
    *,
    std: PooledStd | None = None,
) -> Comparison:
    """Compare the finished runs of two rows.

    Two or more seeds each: Welch's t test. Else one run of each on the same test images, of which
    nothing is tested, see `compare_runs`. With ``std``, pooled over the study's rows, a
    t test uses it instead, whatever the seeds. Not corrected: see `holm_adjust`.

    Raises UserError where a row has no finished run, two runs of one seed, another metric or other
    data.
    """
    child, parent = list(child), list(parent)
    mine, its = _finished(child), _finished(parent)
    images = _shared_images([*child, *parent])
    metric = _shared_metric([*mine.values(), *its.values()])
    resolution = resolution_of(next(iter(mine.values())).metric)
    shared = sorted(mine.keys() & its.keys())
    tops = [[run.value for run in runs.values()] for runs in (mine, its)]
    scope = f"seeds, on these {images} test images"
    if std is not None:
        found = pooled_difference(tops[0], tops[1], std)
    elif min(len(mine), len(its)) > 1:
        found = welch_difference(*tops, resolution=resolution)
    else:
        seeds = (shared[0], shared[0]) if shared else (min(mine), min(its))
        found = compare_runs(mine[seeds[0]], its[seeds[1]])
        scope = IMAGES_ONLY
    return Comparison(
        difference=found,
        p_adjusted=found.p,
        family=1,
        scope=scope,
        new_images=_new_images(mine, its, resolution) if std is None else None,
        metric=metric,
    )


def _new_images(
    mine: Mapping[int, Result], its: Mapping[int, Result], resolution: float
) -> Difference | None:
    """The difference with both seeds and test images as drawn by chance; of two seeds alone its
    interval would cover too little."""
    shared = sorted(mine.keys() & its.keys())
    if len(shared) < FEWEST_CROSSED:
        return None
    sums = evidence([runs[seed] for runs in (mine, its) for seed in shared])
    if sums is None or sums.measured < 2:  # the images or their groups differ
        return None
    parts = slice(len(shared)), slice(len(shared), None)
    return seeds_and_images(*(sums.of_runs(part) for part in parts), resolution=resolution)


def holm_adjust(comparisons: Mapping[_Key, Comparison]) -> dict[_Key, Comparison]:
    """The same comparisons, corrected by Holm's method for the number of those with seeds."""
    found = {name: one.difference.p for name, one in comparisons.items()}
    tested = {name: p for name, p in found.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        name: replace(one, p_adjusted=adjusted[name], family=len(tested)) if name in tested else one
        for name, one in comparisons.items()
    }


def _finished(records: Sequence[Record]) -> dict[int, Result]:
    """Results by seed."""
    found: dict[int, Result] = {}
    for record in records:
        if record.result is None:
            continue
        if record.run.seed in found:
            raise UserError(f"{record.run.name}: seed {record.run.seed} is there twice; give one")
        found[record.run.seed] = record.result
    if not found:
        name = records[0].run.name if records else "a row without records"
        raise UserError(f"{name}: no finished run to compare; train it first")
    return found


def _shared_images(records: Iterable[Record]) -> int:
    """How many test images all finished runs share."""
    done = [one for one in records if one.result]
    kinds = {
        (one.run.data_identity, one.result.val_images): one.run.data for one in done if one.result
    }
    if len(kinds) > 1:
        named = sorted((data, images) for (_, images), data in kinds.items())
        shown = " and ".join(f"{data} ({images} test images)" for data, images in named)
        raise UserError(f"{shown} cannot be compared: give runs on the same data")
    first = fingerprint_of(done[0])
    for one in done:
        if changed := difference(first, fingerprint_of(one), ("in the others", "in the others")):
            raise UserError(f"{one.run.id}: {changed}; give runs on the same data")
    images = next(images for _, images in kinds)
    if images < 1:
        raise UserError("a run without test images cannot be compared: give data to test on")
    return images


def _shared_metric(results: Sequence[Result]) -> MetricSpec:
    """The primary metric of all runs."""
    kinds = {
        (one.primary, one.metric.label, one.metric.unit, one.metric.higher_is_better)
        for one in results
    }
    if len(kinds) > 1:
        shown = " and ".join(sorted(label for _, label, _, _ in kinds))
        raise UserError(f"{shown} cannot be compared: give runs with the same primary metric")
    return spec_of(results[0].primary, results[0].metric, [one.value for one in results])


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
