"""From the records of a study to what its steps are worth, in points of accuracy and in MACs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from convnext_study.records import Record
from convnext_study.results.attribution.shapley import Shapley, shapley_exact, shapley_sampled
from convnext_study.results.attribution.subsets import (
    Order,
    Side,
    Subset,
    pair_interactions,
    plan_exact,
    plan_orders,
    prefixes,
)
from convnext_study.results.statistics import (
    Comparison,
    Deviation,
    Interval,
    compare,
    correct,
    pooled_deviation,
)
from convnext_study.results.statistics.intervals import t_quantile
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.beyond import network_steps, sections


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a step (a pair, a section) is worth: points of accuracy, and MACs of one image.

    ``interval`` is of ``points``, None where nothing measured its noise. ``told`` says whether it
    can be told from noise after correction, ``p`` with which probability. ``top1``, ``network_macs``
    and ``seeds`` are of the network that was trained for it, where there is one.
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
    """Sort finished runs by the steps that their networks have; others are passed.

    Only runs with the second row's recipe, data and ``seeds`` count (all seeds if none are given);
    the deviation between seeds is pooled over every row that has several.
    """
    rows = {_text(road.apply(steps).to_dict()): steps for steps in _prefixes_of(road)}
    found: dict[Subset, dict[int, Record]] = {}
    technique = {name for name in road.adopted() if not road.step(name).sets}
    for record in records:
        facts = record.run.facts
        steps = rows.get(_text(record.run.model.args))
        if "steps" in facts:
            given = frozenset(map(str, facts["steps"]))
            steps = given - technique if technique <= given else None
        elif facts.get("recipe_step") or record.run.recipe.get("family") == "classic":
            steps = None
        if steps is None or record.result is None or not _is(road, steps, record):
            continue
        found.setdefault(steps, {})[record.run.seed] = record
    deviation = _deviation(found.values())
    wanted = {
        steps: tuple(one for seed, one in sorted(by_seed.items()) if not seeds or seed in seeds)
        for steps, by_seed in found.items()
    }
    return Measured(road, {steps: own for steps, own in wanted.items() if own}, deviation)


def leave_one_out_findings(
    measured: Measured, without_recipe: Sequence[Record] = ()
) -> Findings | None:
    """What the last network loses without each step; None while the last one is not trained.

    ``without_recipe`` are runs of the last network with the first row's recipe.
    """
    steps = frozenset(measured.steps)
    end = measured.networks.get(steps)
    if end is None:
        return None
    others = {step: measured.networks.get(steps - {step}, ()) for step in measured.steps}
    for name in measured.road.adopted():
        if not measured.road.step(name).sets:
            others = {name: tuple(without_recipe), **others}
    lines = _compared(measured, {name: (end, runs) for name, runs in others.items() if runs}, 1)
    return Findings(
        kind="leave_one_out",
        title="The last network without each step",
        head="lost without it",
        lines=lines,
        notes=(_about("the last network", end), *_how(measured)),
    )


def add_one_in_findings(measured: Measured) -> Findings | None:
    """What each step alone adds to the base; None while the base is not trained."""
    base = measured.networks.get(frozenset())
    if base is None:
        return None
    others = {step: measured.networks.get(frozenset([step]), ()) for step in measured.steps}
    lines = _compared(measured, {name: (runs, base) for name, runs in others.items() if runs}, 0)
    return Findings(
        kind="add_one_in",
        title="The first network with each single step",
        head="added alone",
        lines=lines,
        notes=(_about("the first network, enhanced recipe,", base), *_how(measured)),
    )


def order_findings(measured: Measured, order: Order, name: str, title: str) -> Findings | None:
    """What each step adds when the steps come in this order; None while none can be said."""
    along = [measured.networks.get(subset, ()) for subset in prefixes(order)]
    pairs = {
        step: (along[place + 1], along[place])
        for place, step in enumerate(order)
        if along[place] and along[place + 1]
    }
    if not pairs:
        return None
    lines = _compared(measured, pairs, 0)
    return Findings(
        kind=name, title=title, head="added here", lines=lines, notes=_how(measured)
    )


def pair_findings(measured: Measured, side: Side) -> Findings | None:
    """How much more two steps are worth together than apart; for the pairs that are trained."""
    steps, everything = measured.steps, frozenset(measured.steps)
    top1, macs = measured.top1(), measured.macs()
    lines = []
    for pair in combinations(steps, 2):
        picks = [frozenset(pick) for pick in ((), pair[:1], pair[1:], pair)]
        sets = [pick if side == "base" else everything - pick for pick in picks]
        if not all(subset in top1 for subset in sets):
            continue
        # Seen within the pair, the network's other steps stand still.
        inner = [(subset & set(pair), subset) for subset in sets]
        points, more = (
            pair_interactions(pair, {own: values[subset] for own, subset in inner}, side)[pair]
            for values in (top1, macs)
        )
        noise = measured.noise(sets)
        half = 2 * noise.points * t_quantile(noise.freedom, 0.95) if noise else None
        lines.append(
            Finding(
                name="+".join(pair),
                label=" and ".join(map(measured.label, pair)),
                points=points,
                macs=more,
                interval=None if half is None else Interval(points - half, points + half),
                told=None if half is None else abs(points) > half,
            )
        )
    if not lines:
        return None
    lines.sort(key=lambda line: -abs(line.points))
    where = "the last network" if side == "end" else "the first network"
    note = (
        "Above 0 the two need each other, below 0 either will do. Intervals are of one pair alone: "
        f"of {len(lines)} pairs about {max(1, round(len(lines) / 20))} lie outside by chance."
    )
    return Findings(
        kind=f"pairs_{side}",
        title=f"Pairs of steps, seen from {where}",
        head="together more",
        lines=tuple(lines),
        notes=(note, *_how(measured)),
    )


def shapley_findings(measured: Measured, orders: Sequence[Order]) -> Findings | None:
    """Each step's share over sampled orders; None while a network of theirs is missing."""
    if not orders or plan_orders(orders).missing(measured.networks):
        return None
    noise = measured.noise(plan_orders(orders).subsets)
    shares = shapley_sampled(orders, measured.top1(), noise=noise)
    macs = shapley_sampled(orders, measured.macs())
    labels = {step: measured.label(step) for step in measured.steps}
    return _shapley("shapley_steps", labels, shares, macs)


def section_findings(measured: Measured) -> Findings | None:
    """Each section's exact share, all its steps together; None while a network is missing."""
    groups = sections(measured.road)
    plan = plan_exact(tuple(groups))
    sets = {subset: steps_of_sections(measured.road, subset) for subset in plan.subsets}
    if any(steps not in measured.networks for steps in sets.values()):
        return None
    top1, macs = (
        {subset: values[steps] for subset, steps in sets.items()}
        for values in (measured.top1(), measured.macs())
    )
    names = tuple(groups)
    shares = shapley_exact(names, top1, noise=measured.noise(sets.values()))
    labels = {
        name: f"{name}: " + ", ".join(map(measured.label, steps)) for name, steps in groups.items()
    }
    return _shapley("shapley_sections", labels, shares, shapley_exact(names, macs))


def steps_of_sections(road: Roadmap, names: Iterable[str]) -> Subset:
    """All steps of these sections of the paper."""
    return frozenset(step for name in names for step in sections(road)[name])


def _shapley(kind: str, labels: Mapping[str, str], shares: Shapley, macs: Shapley) -> Findings:
    lines = [
        Finding(
            name=name,
            label=label,
            points=shares.shares[name].value,
            interval=shares.shares[name].interval,
            told=_beyond_zero(shares.shares[name].interval),
            macs=macs.shares[name].value,
        )
        for name, label in labels.items()
    ]
    what = "section" if kind.endswith("sections") else "step"
    note = "Intervals are of one share alone, not corrected for their number."
    return Findings(
        kind=kind,
        title=f"Shapley value of each {what}: its gain averaged over orders",
        head="share",
        lines=tuple(lines),
        total=Finding(name="total", label="last network over first", points=shares.total, macs=macs.total),
        notes=(f"Accuracy: {shares.method}.", note),
    )


def _beyond_zero(interval: Interval | None) -> bool | None:
    return None if interval is None else not interval.low <= 0 <= interval.high


def _compared(
    measured: Measured,
    pairs: Mapping[str, tuple[Sequence[Record], Sequence[Record]]],
    trained: int,
) -> tuple[Finding, ...]:
    """First against second of each pair; ``trained`` is the one that the line is about."""
    tests = correct(
        {
            name: compare(*pair, deviation=measured.deviation)
            for name, pair in pairs.items()
        }
    )
    return tuple(
        _line(name, measured.label(name), tests[name], pairs[name], trained) for name in pairs
    )


def _line(
    name: str,
    label: str,
    test: Comparison,
    pair: tuple[Sequence[Record], Sequence[Record]],
    trained: int,
) -> Finding:
    macs = [next(one.result.macs for one in runs if one.result) for runs in pair]
    about = [one.result.top1 for one in pair[trained] if one.result]
    return Finding(
        name=name,
        label=label,
        points=test.difference.points,
        macs=macs[0] - macs[1],
        interval=test.difference.interval,
        p=test.p_corrected,
        told=test.distinguishable,
        top1=fmean(about),
        network_macs=macs[trained],
        seeds=len(about),
    )


def _about(which: str, records: Sequence[Record]) -> str:
    results = [record.result for record in records if record.result]
    top1 = fmean(result.top1 for result in results)
    return f"Against {which} at {top1:.2f} % and {results[0].macs:,} MACs, {len(results)} seed(s)."


def _how(measured: Measured) -> tuple[str, ...]:
    if measured.deviation is None:
        return (
            "One seed: intervals and tests (exact McNemar, Holm's correction) cover the choice of "
            "test images only. What another seed would change takes several seeds.",
        )
    between = measured.deviation
    return (
        f"t tests with the deviation between seeds, {between.points:.2f} points, pooled over "
        f"{between.source} ({between.freedom:g} degrees of freedom); p after Holm's correction.",
    )


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


def _prefixes_of(road: Roadmap) -> list[Subset]:
    return prefixes(network_steps(road))


def _is(road: Roadmap, steps: Subset, record: Record) -> bool:
    """Whether the record's network is the road's with these steps: names alone may deceive."""
    known = set(network_steps(road))
    return steps <= known and _text(road.apply(steps).to_dict()) == _text(record.run.model.args)


def _text(values: Mapping[str, object]) -> str:
    import json

    return json.dumps(values, sort_keys=True)
