"""The finished runs of a road's networks by their steps, and the pooled standard deviation.

Only runs that agree in recipe, data, test images and code are counted and pooled: those that the
caller asks for, else those that most runs share. Everything that says what a step is worth
(terminal, files, page) is computed from what `group_by_subset` returns.
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

RECIPE = "recipe"  # a fact of runs: which of the road map's recipes their row is trained with


class _Setting(NamedTuple):
    """What two runs must have in common to be compared and pooled."""

    data: str
    val_images: int
    metric: str
    code: str
    recipe: str  # JSON


@dataclass(frozen=True, kw_only=True)
class SubsetResults:
    """Finished runs of a road's networks by their sets of steps, alike in all else but the seed.

    ``without_recipe`` are runs of the last network with the first row's recipe: the one step that
    no network shows. ``std`` is the standard deviation between seeds, pooled over ``networks``;
    None where none has two seeds. ``excluded`` says in words which runs of these networks are not
    counted.
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
        """What the networks are judged by."""
        results = [one for records in self.networks.values() for one in results_of(records)]
        if not results:
            return UNNAMED
        return spec_of(results[0].primary, results[0].metric, [one.value for one in results])

    def worth(self) -> dict[Coalition, float]:
        """The mean of each set's metric, in its unit; with the sign turned where lower is better,
        so that a difference above 0 is for the better."""
        sign = self.metric.sign
        return {
            subset: sign * fmean(result.value for result in results_of(records))
            for subset, records in self.networks.items()
        }

    def macs(self) -> dict[Coalition, float]:
        """Multiply-accumulates of each set's network, for one image."""
        return {
            subset: float(results_of(records)[0].cost.macs)
            for subset, records in self.networks.items()
        }

    def std_of_mean(self, subsets: Iterable[Coalition]) -> PooledStd | None:
        """The standard deviation of a mean over as many seeds as the set with the fewest has."""
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
    """Sort finished runs by the steps that their networks have; those of other networks are passed.

    ``recipe`` and ``data`` (as `Run.data_identity` has it), where given, are the only ones that
    count. ``seeds``, where given,
    restricts the networks and not the pooled standard deviation. With ``any_commit`` runs made with
    other versions of the code count as well.
    """
    rows = {_json(road.apply(steps).to_dict()): steps for steps in prefixes(network_steps(road))}
    found = [
        (steps, _setting(record, record.result, any_commit), record)
        for record in records
        if record.result is not None and record.result.val_images > 0
        for steps in (_subset_of(record.run, road, rows),)
        if steps is not None
    ]
    counts = Counter(
        setting
        for _, setting, record in found
        if (recipe is None or setting.recipe == _json(recipe))
        and data in (None, record.run.data_identity)
    )
    if not counts:
        return SubsetResults(road=road, networks={})
    kept = counts.most_common(1)[0][0]
    first, end = road.variants()[0].recipe, frozenset(network_steps(road))
    by_seed: dict[Coalition, dict[int, Record]] = {}
    others: dict[str, dict[int, Record]] = {}  # of the end, by a recipe of the first row's
    for steps, setting, record in found:
        if setting == kept:
            by_seed.setdefault(steps, {}).setdefault(record.run.seed, record)
        elif setting[:4] == kept[:4] and record.run.metadata.get(RECIPE) == first and steps == end:
            others.setdefault(setting.recipe, {})[record.run.seed] = record
    ours = json.loads(kept.recipe)

    def unlike(recipe: str) -> tuple[int, float]:
        its = json.loads(recipe)
        fields = sum(its.get(name) != value for name, value in ours.items())
        return fields, abs((its.get("epochs") or 0) - (ours.get("epochs") or 0))

    nearest = others[min(sorted(others), key=unlike)] if others else {}
    networks = {steps: _chosen(own, seeds) for steps, own in by_seed.items()}
    counted = [results_of(own.values()) for own in by_seed.values()]
    several = sum(len(own) > 1 for own in counted)
    return SubsetResults(
        road=road,
        networks={steps: own for steps, own in networks.items() if own},
        without_recipe=_chosen(nearest, seeds),
        std=pool_std(
            [[result.value for result in own] for own in counted],
            f"{several} networks",
            resolution=max(resolution_of(result.metric) for own in counted for result in own),
        ),
        excluded=_excluded(first, kept, [(setting, record) for _, setting, record in found]),
    )


def results_of(records: Iterable[Record]) -> list[Result]:
    """The results of the records that have one."""
    return [record.result for record in records if record.result is not None]


def _subset_of(run: Run, road: Roadmap, rows: Mapping[str, Coalition]) -> Coalition | None:
    """The network's steps: as its specification has them, whatever its facts say.

    Sets of steps are known by their facts, which must fit the specification. A network of another
    builder has none: there the facts are believed.
    """
    if (steps := rows.get(_json(run.model.args))) is not None:
        return steps
    named = _named(run.metadata, road)
    if named is None or not named <= frozenset(network_steps(road)):
        return None
    is_spec = run.model.args.keys() == road.base.to_dict().keys()
    return None if is_spec and run.model.args != road.apply(named).to_dict() else named


def _named(metadata: Mapping[str, Any], road: Roadmap) -> Coalition | None:
    """The network's steps by the fact ``steps``, without the recipe's."""
    names = metadata.get("steps")
    if metadata.get("regime") != road.regime or not isinstance(names, list | tuple):
        return None
    return frozenset(map(str, names)) - (frozenset(road.adopted()) - {*network_steps(road)})


def _setting(record: Record, result: Result, any_commit: bool) -> _Setting:
    code = "" if any_commit else code_version(record)
    recipe = _json(record.run.recipe)
    return _Setting(data_of(record), result.val_images, result.primary, code, recipe)


def _chosen(by_seed: Mapping[int, Record], seeds: Sequence[int]) -> tuple[Record, ...]:
    return tuple(own for seed, own in sorted(by_seed.items()) if not seeds or seed in seeds)


def _excluded(
    first: str, kept: _Setting, found: Sequence[tuple[_Setting, Record]]
) -> tuple[str, ...]:
    """How many runs of these networks were made on data of the same place that was other data, or
    differ in recipe (but the ``first`` row's, which studies ask for) or code."""
    places = {own.run.data for one, own in found if one == kept}
    words = (
        "on data that has changed are not counted.",
        "with another recipe are not counted.",
        f"not made at {kept.code} are not counted; --any-commit counts them.",
    )

    def why(one: _Setting, own: Record) -> str | None:
        if one == kept or own.run.data not in places or own.run.metadata.get(RECIPE) == first:
            return None
        return words[0 if one.data != kept.data else 1 if one.recipe != kept.recipe else 2]

    counts = Counter(why(*one) for one in found)
    return tuple(f"{counts[one]} run(s) {one}" for one in words if counts[one])


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
