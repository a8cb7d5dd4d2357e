"""The finished runs of a road's networks by their steps, and the pooled standard deviation.

Only runs that agree in recipe, data, test images and code are counted and pooled: those that the
caller requests, else those that most runs share. All values of steps (terminal, files, page) are
computed from what `group_by_subset` returns.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from convnext_study.results.compare import resolution_of
from convnext_study.results.grouping import code_version
from convnext_study.results.metric_spec import UNNAMED, MetricSpec, spec_of
from convnext_study.results.statistics.intervals import PooledStd, pool_std
from convnext_study.results.statistics.subsets import Coalition, prefixes
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.extensions import network_steps
from convnext_study.runs.fingerprints import data_of
from convnext_study.runs.records import Record, Result, Run

RECIPE = "recipe"  # in a run's metadata: which of the road map's recipes its row is trained with


class _Setting(NamedTuple):
    """What two runs must share to be compared and pooled."""

    data: str
    val_images: int
    metric: str
    code: str
    recipe: str  # JSON


@dataclass(frozen=True, kw_only=True)
class SubsetResults:
    """Finished runs of a road's networks by their sets of steps, equal in all else but the seed.

    ``without_recipe`` are runs of the last network with the first row's recipe: the one step that
    does not change the network. ``std`` is the standard deviation between seeds, pooled over
    ``networks``; None where none has two seeds. ``excluded`` describes the runs of these networks
    that are not counted.
    """

    road: Roadmap
    networks: Mapping[Coalition, tuple[Record, ...]]
    without_recipe: tuple[Record, ...] = ()
    std: PooledStd | None = None
    excluded: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that change the network, in the order of the road."""
        return network_steps(self.road)

    @property
    def metric(self) -> MetricSpec:
        """The primary metric of the networks."""
        results = [result for records in self.networks.values() for result in results_of(records)]
        if not results:
            return UNNAMED
        return spec_of(results[0].primary, results[0].metric, [result.value for result in results])

    def worth(self) -> dict[Coalition, float]:
        """The mean of each set's metric, in its unit; negated where lower is better, so that a
        difference above 0 is for the better."""
        sign = self.metric.sign
        return {
            subset: sign * fmean(result.value for result in results_of(records))
            for subset, records in self.networks.items()
        }

    def macs(self) -> dict[Coalition, float]:
        """Multiply-accumulates of each set's network, per image."""
        return {
            subset: float(results_of(records)[0].cost.macs)
            for subset, records in self.networks.items()
        }

    def std_of_mean(self, subsets: Iterable[Coalition]) -> PooledStd | None:
        """The standard deviation of a mean over the seeds of the set with the fewest."""
        if self.std is None:
            return None
        fewest = min(len(self.networks[subset]) for subset in subsets)
        return replace(self.std, std=self.std.std / math.sqrt(fewest))


def group_by_subset(
    records: Iterable[Record],
    road: Roadmap,
    *,
    recipe: Mapping[str, Any] | None = None,
    data: str | None = None,
    seeds: Sequence[int] = (),
    any_commit: bool = False,
) -> SubsetResults:
    """Group finished runs by the steps of their networks; runs of other networks are ignored.

    Only runs with the given ``recipe`` and ``data`` (a `Run.data_identity`) count. ``seeds``, where
    given, restricts the networks but not the pooled standard deviation. With ``any_commit``, runs
    of other versions of the code count as well.
    """
    rows = {_json(road.apply(steps).to_dict()): steps for steps in prefixes(network_steps(road))}
    finished = [
        (steps, _setting(record, record.result, any_commit), record)
        for record in records
        if record.result is not None and record.result.val_images > 0
        for steps in (_subset_of(record.run, road, rows),)
        if steps is not None
    ]
    counts = Counter(
        setting
        for _, setting, record in finished
        if (recipe is None or setting.recipe == _json(recipe))
        and data in (None, record.run.data_identity)
    )
    if not counts:
        return SubsetResults(road=road, networks={})
    kept = counts.most_common(1)[0][0]
    first, end = road.variants()[0].recipe, frozenset(network_steps(road))
    by_seed: dict[Coalition, dict[int, Record]] = {}
    by_recipe: dict[str, dict[int, Record]] = {}  # of the end, trained as the first row was
    for steps, setting, record in finished:
        if setting == kept:
            by_seed.setdefault(steps, {}).setdefault(record.run.seed, record)
        elif setting[:4] == kept[:4] and record.run.metadata.get(RECIPE) == first and steps == end:
            by_recipe.setdefault(setting.recipe, {})[record.run.seed] = record
    fields_kept = json.loads(kept.recipe)

    def distance(recipe: str) -> tuple[int, float]:
        other = json.loads(recipe)
        fields = sum(other.get(name) != value for name, value in fields_kept.items())
        return fields, abs((other.get("epochs") or 0) - (fields_kept.get("epochs") or 0))

    without_recipe = by_recipe[min(sorted(by_recipe), key=distance)] if by_recipe else {}
    networks = {steps: _with_seeds(runs, seeds) for steps, runs in by_seed.items()}
    counted = [results_of(runs.values()) for runs in by_seed.values()]
    several = sum(len(results) > 1 for results in counted)
    return SubsetResults(
        road=road,
        networks={steps: runs for steps, runs in networks.items() if runs},
        without_recipe=_with_seeds(without_recipe, seeds),
        std=pool_std(
            [[result.value for result in results] for results in counted],
            f"{several} networks",
            resolution=max(resolution_of(run.metric) for results in counted for run in results),
        ),
        excluded=_excluded(first, kept, [(setting, record) for _, setting, record in finished]),
    )


def results_of(records: Iterable[Record]) -> list[Result]:
    """The results of the records that have one."""
    return [record.result for record in records if record.result is not None]


def _subset_of(run: Run, road: Roadmap, rows: Mapping[str, Coalition]) -> Coalition | None:
    """The network's steps, from its specification, whatever its metadata says.

    A set of steps that is no prefix of the road is read from the metadata, which must fit the
    specification. A network of another builder has none: its metadata is trusted.
    """
    if (steps := rows.get(_json(run.model.args))) is not None:
        return steps
    named = _steps_in_metadata(run.metadata, road)
    if named is None or not named <= frozenset(network_steps(road)):
        return None
    is_spec = run.model.args.keys() == road.base.to_dict().keys()
    return None if is_spec and run.model.args != road.apply(named).to_dict() else named


def _steps_in_metadata(metadata: Mapping[str, Any], road: Roadmap) -> Coalition | None:
    """The network's steps in the metadata's ``steps``, without the recipe's."""
    names = metadata.get("steps")
    if metadata.get("regime") != road.regime or not isinstance(names, list | tuple):
        return None
    return frozenset(map(str, names)) - (frozenset(road.adopted()) - {*network_steps(road)})


def _setting(record: Record, result: Result, any_commit: bool) -> _Setting:
    code = "" if any_commit else code_version(record)
    recipe = _json(record.run.recipe)
    return _Setting(data_of(record), result.val_images, result.primary, code, recipe)


def _with_seeds(by_seed: Mapping[int, Record], seeds: Sequence[int]) -> tuple[Record, ...]:
    return tuple(record for seed, record in sorted(by_seed.items()) if not seeds or seed in seeds)


def _excluded(
    first: str, kept: _Setting, finished: Sequence[tuple[_Setting, Record]]
) -> tuple[str, ...]:
    """Counts, in words, of runs of these networks on the same data URI that differ in the data
    itself, in recipe (except the ``first`` row's, which studies request) or in code."""
    uris = {record.run.data for setting, record in finished if setting == kept}
    reasons = (
        "on changed data are not counted.",
        "with another recipe are not counted.",
        f"not made at {kept.code} are not counted; --any-commit counts them.",
    )

    def why(own: _Setting, record: Record) -> str | None:
        run = record.run
        if own == kept or run.data not in uris or run.metadata.get(RECIPE) == first:
            return None
        return reasons[0 if own.data != kept.data else 1 if own.recipe != kept.recipe else 2]

    counts = Counter(why(setting, record) for setting, record in finished)
    return tuple(f"{counts[reason]} run(s) {reason}" for reason in reasons if counts[reason])


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
