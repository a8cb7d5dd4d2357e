"""A step against its parent: the test that the records allow, and Holm's correction over steps."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from convnext_study.errors import UserError
from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.results.per_sample import compare_runs, evidence, resolution_of
from convnext_study.results.statistics.intervals import (
    Difference,
    PooledStd,
    holm,
    paired_difference,
    pooled_difference,
    unpaired_difference,
)
from convnext_study.results.statistics.paired_samples import seeds_and_images
from convnext_study.runs.fingerprints import difference, fingerprint_of
from convnext_study.runs.records import Record, Result

ALPHA = 0.05
IMAGES_ONLY = "test images only, not seeds"

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A step's difference to its parent, and whether it is significant.

    ``difference`` has unit, interval and p of this comparison alone, child minus parent whatever
    the direction of ``metric``; ``p_adjusted`` is Holm's
    over the ``family`` comparisons made together, and it alone decides. ``scope`` says what the
    test takes to vary. ``new_images``, for shared seeds, is the same difference where the test
    images vary as well.
    """

    difference: Difference
    p_adjusted: float
    family: int
    scope: str
    note: str
    new_images: Difference | None = None
    metric: MetricSpec = UNNAMED

    @property
    def significant(self) -> bool:
        """Whether the adjusted p value is at most alpha."""
        return self.p_adjusted <= ALPHA


def compare(
    child: Iterable[Record],
    parent: Iterable[Record],
    *,
    std: PooledStd | None = None,
) -> Comparison:
    """Compare the finished runs of two rows by the test that fits them.

    Two or more shared seeds: paired t test on their differences. Two or more seeds each, fewer
    shared: Welch's t test. Else one run of each on the same test images, see `compare_runs`. With
    ``std``, pooled over the study's rows, the t test uses it instead, whatever the seeds. Not
    corrected: see `holm_adjust`.

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
    both, wide = [[runs[seed] for seed in shared] for runs in (mine, its)], None
    if len(shared) > 1:
        sums = evidence([*both[0], *both[1]])  # None where the images or their groups differ
        if sums is not None and sums.measured > 1:
            wide = seeds_and_images(
                *(sums.of_runs(part) for part in (slice(len(shared)), slice(len(shared), None))),
                resolution=resolution,
            )
    scope, note = f"seeds, on these {images} test images", _pairing_note(mine, its, shared)
    if std is not None:
        found = pooled_difference(tops[0], tops[1], std)
        note = "The standard deviation between seeds is taken to be the same in every row."
    elif len(shared) > 1:
        pairs = [[run.value for run in runs] for runs in both]
        found = paired_difference(*pairs, resolution=resolution)
    elif min(len(mine), len(its)) > 1:
        found = unpaired_difference(*tops, resolution=resolution)
        note = "Too few seeds are shared to pair the runs."
    else:
        seeds = (shared[0], shared[0]) if shared else (min(mine), min(its))
        found = compare_runs(mine[seeds[0]], its[seeds[1]])
        scope, note = IMAGES_ONLY, _single_note(seeds)
    return Comparison(
        difference=found,
        p_adjusted=found.p,
        family=1,
        scope=scope,
        note=note,
        new_images=wide,
        metric=metric,
    )


def image_tests(comparisons: Iterable[Comparison]) -> list[str]:
    """The tests of single runs among these, by name."""
    alone = [one for one in comparisons if one.scope == IMAGES_ONLY]
    return sorted({one.difference.method.partition(" on ")[0] for one in alone})


def holm_adjust(comparisons: Mapping[_Key, Comparison]) -> dict[_Key, Comparison]:
    """The same comparisons, corrected for their number by Holm's method."""
    corrected = holm([one.difference.p for one in comparisons.values()])
    return {
        name: replace(one, p_adjusted=p, family=len(corrected))
        for (name, one), p in zip(comparisons.items(), corrected, strict=True)
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
    """The metric that all runs are judged by."""
    kinds = {
        (one.primary, one.metric.label, one.metric.unit, one.metric.higher_is_better)
        for one in results
    }
    if len(kinds) > 1:
        shown = " and ".join(sorted(label for _, label, _, _ in kinds))
        raise UserError(f"{shown} cannot be compared: give runs with the same primary metric")
    return spec_of(results[0].primary, results[0].metric, [one.value for one in results])


def _pairing_note(mine: Mapping[int, Result], its: Mapping[int, Result], shared: list[int]) -> str:
    note = "Pairing evens out what a seed draws alike in both networks, such as the images' order."
    unused = len(mine.keys() ^ its.keys())
    if unused:
        note += f" {unused} runs whose seed only one of the two has are left out."
    if len(shared) < 4:
        note += f" With {len(shared)} seeds only differences of many standard deviations show."
    return note


def _single_note(seeds: tuple[int, int]) -> str:
    which = f"seed {seeds[0]}" if seeds[0] == seeds[1] else f"seeds {seeds[0]} and {seeds[1]}"
    return f"One run of each ({which}): what another seed would change is not covered."
