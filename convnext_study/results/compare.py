"""A step against its parent: Welch's t test on seeds, and Holm's correction over steps.

This test alone decides what is significant. Nothing is where a row has a single seed: its interval
covers another choice of test images and cannot show what another seed would change.
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
    """A step's difference from its parent, and whether it is significant.

    ``difference`` is child minus parent whatever the direction of ``metric``, with the interval and
    p of this comparison alone; ``p_adjusted`` is Holm's over the ``family`` comparisons made
    together and decides significance; it is None where a row has one seed. ``scope`` names what the
    test takes to vary. ``new_images``, for three or more shared seeds, is the same difference with
    test images random as well; None for a pooled test, whose unpooled twin already has it.
    """

    difference: Difference
    p_adjusted: float | None
    family: int
    scope: str
    new_images: Difference | None = None
    metric: MetricSpec = UNNAMED

    @property
    def significant(self) -> bool | None:
        """Whether the adjusted p value is at most alpha; None where nothing was tested."""
        return None if self.p_adjusted is None else self.p_adjusted <= ALPHA


def compare(
    child: Iterable[Record],
    parent: Iterable[Record],
    *,
    std: PooledStd | None = None,
) -> Comparison:
    """Compare the finished runs of two rows.

    Two or more seeds each: Welch's t test. Otherwise the means of both on the same test images,
    without a test, see `compare_runs`. With ``std``, pooled over the study's rows, a t test uses
    that instead, for any number of seeds. p is not corrected: see `holm_adjust`.

    Raises UserError where a row has no finished run, two runs of one seed, or another metric or
    data set than the other.
    """
    child, parent = list(child), list(parent)
    child_results, parent_results = _finished(child), _finished(parent)
    images = _shared_images([*child, *parent])
    metric = _shared_metric([*child_results.values(), *parent_results.values()])
    resolution = resolution_of(next(iter(child_results.values())).metric)
    values = [[run.value for run in runs.values()] for runs in (child_results, parent_results)]
    scope = f"seeds, on these {images} test images"
    if std is not None:
        result = pooled_difference(values[0], values[1], std)
    elif min(len(child_results), len(parent_results)) > 1:
        result = welch_difference(*values, resolution=resolution)
    else:
        result = compare_runs([*child_results.values()], [*parent_results.values()])
        scope = IMAGES_ONLY
    return Comparison(
        difference=result,
        p_adjusted=result.p,
        family=1,
        scope=scope,
        new_images=_new_images(child_results, parent_results, resolution) if std is None else None,
        metric=metric,
    )


def _new_images(
    child: Mapping[int, Result], parent: Mapping[int, Result], resolution: float
) -> Difference | None:
    """The difference with both seeds and test images random; with only two seeds its interval
    would cover too little."""
    shared = sorted(child.keys() & parent.keys())
    if len(shared) < FEWEST_CROSSED:
        return None
    sums = evidence([runs[seed] for runs in (child, parent) for seed in shared])
    if sums is None or sums.measured < 2:  # the images or their groups differ
        return None
    parts = slice(len(shared)), slice(len(shared), None)
    return seeds_and_images(*(sums.of_runs(part) for part in parts), resolution=resolution)


def holm_adjust(comparisons: Mapping[_Key, Comparison]) -> dict[_Key, Comparison]:
    """The same comparisons, corrected by Holm's method over those that have a p."""
    ps = {name: comparison.difference.p for name, comparison in comparisons.items()}
    tested = {name: p for name, p in ps.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {**comparisons} | {
        name: replace(comparisons[name], p_adjusted=p, family=len(tested))
        for name, p in adjusted.items()
    }


def _finished(records: Sequence[Record]) -> dict[int, Result]:
    """Results by seed."""
    results: dict[int, Result] = {}
    for record in records:
        if record.result is None:
            continue
        if record.run.seed in results:
            raise UserError(f"{record.run.name}: seed {record.run.seed} occurs twice; give one")
        results[record.run.seed] = record.result
    if not results:
        name = records[0].run.name if records else "a row without records"
        raise UserError(f"{name}: no finished run to compare; train it first")
    return results


def _shared_images(records: Iterable[Record]) -> int:
    """How many test images all finished runs share."""
    done = [(record, record.result) for record in records if record.result]
    kinds = {(rec.run.data_identity, result.val_images): rec.run.data for rec, result in done}
    if len(kinds) > 1:
        sizes = sorted((data, images) for (_, images), data in kinds.items())
        listing = " and ".join(f"{data} ({images} test images)" for data, images in sizes)
        raise UserError(f"{listing} cannot be compared: use runs on the same data")
    first = fingerprint_of(done[0][0])
    for record, _ in done:
        if changed := difference(first, fingerprint_of(record), ("in the others", "in the others")):
            raise UserError(f"{record.run.id}: {changed}; use runs on the same data")
    images = next(images for _, images in kinds)
    if images < 1:
        raise UserError("a run without test images cannot be compared: use data with a test part")
    return images


def _shared_metric(results: Sequence[Result]) -> MetricSpec:
    """The primary metric of all runs."""
    kinds = {
        (result.primary, result.metric.label, result.metric.unit, result.metric.higher_is_better)
        for result in results
    }
    if len(kinds) > 1:
        labels = " and ".join(sorted(label for _, label, _, _ in kinds))
        raise UserError(f"{labels} cannot be compared: use runs with the same primary metric")
    return spec_of(results[0].primary, results[0].metric, [result.value for result in results])


@dataclass(frozen=True, kw_only=True)
class ImageNoise:
    """What the choice of test images may change in a mean over seeds, in the metric's unit.

    ``interval`` is the 95 % one, by ``method``; None where the metric has no evidence. ``groups``
    counts groups of dependent images; None without groups.
    """

    interval: Interval | None = None
    method: str = ""
    groups: int | None = None


def image_noise(results: Sequence[Result]) -> ImageNoise:
    """Of one network's results: Wilson's interval for right and wrong answers, else a bootstrap;
    images of one group are drawn together, with a t interval where groups are few."""
    import numpy as np

    sums = evidence(results)
    samples = results[0].metric.samples
    if sums is None or samples is None or samples.count < 1:
        return ImageNoise()
    groups = samples.group_array()
    n_groups = sums.units if sums.grouped else None
    if groups is not None and sums.units < FEW_UNITS:
        interval, method = jackknife_interval(sums), "t, over groups"
    elif samples.kind != "bits":
        interval = bootstrap_interval(sums)
        method = "bootstrap over groups" if sums.grouped else "bootstrap"
    elif groups is None:
        share = sums.value() / 100
        interval, method = wilson_interval(share * samples.count, samples.count), "Wilson"
    else:
        right = np.mean([run.metric.samples.array() for run in results if run.metric.samples], 0)
        interval, method = grouped_wilson(right, groups), "Wilson, by groups"
    if math.isinf(interval.low):
        return ImageNoise(groups=n_groups)
    return ImageNoise(interval=interval, method=method, groups=n_groups)


def evidence(results: Sequence[Result]) -> SampleSums | None:
    """The sums of the primary metric's samples; None unless all results have them in one shape."""
    samples = [result.metric.samples for result in results]
    present = [each for each in samples if each is not None]
    first = present[0] if present else None
    if first is None or len(present) < len(samples):
        return None
    if any(_shape(each) != _shape(first) for each in present):
        return None
    return sample_sums(first.kind, [each.array() for each in present], first.group_array())


def resolution_of(metric: Metric) -> float:
    """How much one test image changes a metric that counts images; 0 for other metrics."""
    samples = metric.samples
    return 100 / samples.count if samples is not None and samples.kind == "bits" else 0.0


def compare_runs(child: Sequence[Result], parent: Sequence[Result]) -> Difference:
    """The runs of two networks: the difference of means and its interval for other test images.

    Nothing is tested, since one run shows nothing about another seed. Raises UserError where
    evidence is missing or comes from other images.
    """
    runs = [*child, *parent]
    samples = [run.metric.samples for run in runs if run.metric.samples is not None]
    if len(samples) < len(runs):
        raise UserError(f"{runs[0].metric.label}: no per-image records; train two seeds or more")
    first = samples[0]
    if other := next((each for each in samples if _shape(each) != _shape(first)), None):
        raise UserError(
            f"{first.count} and {other.count} test images cannot be paired: use the same data"
        )
    if first.kind == "bits" and first.groups is None and len(runs) == 2:
        return answers_difference(*(each.array() for each in samples))
    sums = sample_sums(first.kind, [each.array() for each in samples], first.group_array())
    return samples_difference(
        sums.of_runs(slice(len(child))), sums.of_runs(slice(len(child), None))
    )


def _shape(samples: Samples) -> tuple[str, int, int, str | None]:
    """The properties that two networks' evidence must share."""
    return samples.kind, samples.count, samples.classes, samples.groups
