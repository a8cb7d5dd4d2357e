"""What a study measured, by sets of steps, and the tables that are made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from convnext_study.records import Record
from convnext_study.results.attribution.subsets import Subset, prefixes
from convnext_study.results.statistics import Deviation, Interval, pooled_deviation
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.beyond import network_steps


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a step (a pair, a section) is worth: points of accuracy, and MACs of one image.

    ``interval`` is of ``points``, None where nothing measured its noise; ``p`` is corrected for the
    number of tests, and ``told`` says whether the finding can be told from noise. ``top1``,
    ``network_macs`` and ``seeds`` are of the network that was trained for it, where there is one.
    """

    name: str
    label: str
    points: float
    macs: float
    interval: Interval | None = None
    p: float | None = None
    told: bool | None = None
    top1: float | None = None
    network_macs: int | None = None
    seeds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A table: ``head`` says what the points are, ``total`` what they add up to if they do."""

    kind: str
    title: str
    head: str
    lines: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    total: Finding | None = None


@dataclass(frozen=True)
class Measured:
    """The finished runs of a road's networks by their sets of steps, all of one data and recipe."""

    road: Roadmap
    networks: Mapping[Subset, tuple[Record, ...]]
    deviation: Deviation | None
    versions: int = 1  # of the code, by commit

    @property
    def steps(self) -> tuple[str, ...]:
        return network_steps(self.road)

    def top1(self) -> dict[Subset, float]:
        """Mean accuracy of each set, in percent."""
        return {
            subset: fmean(record.result.top1 for record in records if record.result)
            for subset, records in self.networks.items()
        }

    def macs(self) -> dict[Subset, float]:
        return {
            subset: float(records[0].result.macs)
            for subset, records in self.networks.items()
            if records[0].result
        }

    def noise(self, subsets: Iterable[Subset]) -> Deviation | None:
        """The deviation of a mean over as many seeds as the set with the fewest has."""
        if self.deviation is None:
            return None
        fewest = min(len(self.networks[subset]) for subset in subsets)
        between = self.deviation
        return Deviation(between.points / math.sqrt(fewest), between.freedom, between.source)

    def label(self, name: str) -> str:
        return self.road.step(name).label


def measure(records: Iterable[Record], road: Roadmap, seeds: Sequence[int] = ()) -> Measured:
    """Sort finished runs, all of one data and recipe, by the steps that their networks have.

    Runs of other networks are passed, as are seeds other than ``seeds`` if some are given; the
    deviation between seeds is pooled over all networks that have several.
    """
    rows = {_text(road.apply(steps).to_dict()): steps for steps in prefixes(network_steps(road))}
    known = frozenset(network_steps(road))
    found: dict[Subset, dict[int, Record]] = {}
    for record in records:
        args = _text(record.run.model.args)
        steps = rows.get(args)
        if steps is None and "steps" in record.run.facts:
            steps = frozenset(map(str, record.run.facts["steps"])) & known
            if _text(road.apply(steps).to_dict()) != args:  # names alone may deceive
                continue
        if steps is not None and record.result is not None:
            found.setdefault(steps, {})[record.run.seed] = record
    deviation = _deviation(found.values())
    wanted = {
        steps: tuple(one for seed, one in sorted(by_seed.items()) if not seeds or seed in seeds)
        for steps, by_seed in found.items()
    }
    networks = {steps: own for steps, own in wanted.items() if own}
    commits = {one.asked.get("commit") for own in networks.values() for one in own}
    return Measured(road, networks, deviation, len(commits))


def _deviation(rows: Iterable[Mapping[int, Record]]) -> Deviation | None:
    several = [[one.result for one in row.values() if one.result] for row in rows]
    several = [results for results in several if len(results) > 1]
    if not several:
        return None
    images = several[0][0].val_images
    return pooled_deviation(
        [[result.top1 for result in results] for results in several],
        f"{len(several)} networks of this folder",
        resolution=100 / images,
    )


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
