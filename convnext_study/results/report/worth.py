"""What each step is worth, from the runs of a folder: taken away, alone, and over all orders.

A row belongs here by its facts: ``left_out`` names steps that the end of the road is without,
``added`` those that the base has, ``steps`` all that a network has. Rows of a road map have the
steps up to their own. Networks are told apart by their steps, whichever study they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convnext_study.errors import BadRequest
from convnext_study.results.attribution import (
    Shapley,
    Subset,
    plan_exact,
    plan_orders,
    sampled_orders,
    shapley_exact,
    shapley_sampled,
)
from convnext_study.results.attribution.subsets import MOST_EXACT, Order
from convnext_study.results.report.differences import compare_groups
from convnext_study.results.report.gather import Study
from convnext_study.results.setups import Group
from convnext_study.results.statistics import Comparison, Deviation, correct
from convnext_study.results.summary import Row
from convnext_study.roadmap import ROADMAPS, get_roadmap

_PAIRS = 2000  # of orders, more than which no study has


@dataclass(frozen=True)
class Network:
    """A trained network and the steps it has."""

    steps: Subset
    row: Row
    group: Group


@dataclass(frozen=True)
class Change:
    """What a step changes at one place of the road: points, and MACs of one image."""

    step: str
    label: str
    comparison: Comparison
    macs: int | None


@dataclass(frozen=True)
class Worth:
    """What the steps of one road map are worth, as far as a study has the runs for it.

    ``without`` is what the end has more than the network without a step, ``alone`` what a step
    adds to the base. ``shares`` are Shapley values of accuracy in points, ``macs`` of MACs.
    """

    study: Study
    labels: dict[str, str]
    without: list[Change]
    alone: list[Change]
    shares: Shapley | None
    macs: Shapley | None
    networks: int


def find_worth(study: Study, others: Iterable[Study] = ()) -> Worth | None:
    """None for a study that leaves no step out and adds none alone.

    Networks that ``others`` have trained are used where the study itself has not, if their
    data and recipes are among the study's.
    """
    if study.is_road or study.meta.regime not in ROADMAPS:
        return None
    networks = _networks(study)
    if not networks:
        return None
    conditions = {_conditions(one.row) for one in networks.values()}
    own = len(networks)
    for other in others:
        if other is not study and other.meta.regime == study.meta.regime:
            for steps, network in _networks(other).items():
                if _conditions(network.row) in conditions:
                    networks.setdefault(steps, network)
    labels = _labels(study)
    players = _players(study)
    without, alone = _near(networks, labels, full=True), _near(networks, labels, full=False)
    shares, macs = _shapley(study, networks, players) if study.kind == "subset" else (None, None)
    if study.kind == "subset":
        without, alone = [], []
    if not (without or alone or shares):
        return None
    return Worth(study, labels, without, alone, shares, macs, own)


def steps_of(row: Row) -> Subset | None:
    """The steps that a row's network has; None where its facts do not say."""
    facts = row.facts
    if row.regime not in ROADMAPS:
        return None
    road = get_roadmap(row.regime)
    adopted = road.adopted()
    for name, steps in (("steps", None), ("added", None), ("left_out", adopted)):
        if name in facts:
            given = facts[name]
            named = frozenset([given] if isinstance(given, str) else map(str, given or ()))
            return frozenset(steps) - named if steps else named
    if row.study != f"roadmap-{row.regime}":
        return None
    try:
        point = road.point(row.name)
    except BadRequest:
        return None
    if point.step is None:
        return frozenset()
    before = [step.name for step in road.steps[: road.steps.index(point.step)] if step.adopted]
    return frozenset([*before, point.name])


def _networks(study: Study) -> dict[Subset, Network]:
    found: dict[Subset, Network] = {}
    for row in study.done:
        steps = steps_of(row)
        if steps is not None:
            found.setdefault(steps, Network(steps, row, study.groups[row.name]))
    return found


def _conditions(row: Row) -> tuple[str, str, int | None]:
    return row.data, row.recipe, row.val_images


def _labels(study: Study) -> dict[str, str]:
    """The paper's names of the steps."""
    road = get_roadmap(study.meta.regime or "")
    return {step.name: step.label for step in road.steps}


def _players(study: Study) -> list[str]:
    """The steps that some of the study's networks have and others lack, in the road's order."""
    named = [steps for row in study.done if (steps := steps_of(row)) is not None]
    everywhere = frozenset.intersection(*named) if named else frozenset()
    order = list(_labels(study))
    steps = frozenset().union(*named) - everywhere
    return sorted(steps, key=lambda name: order.index(name) if name in order else len(order))


def _near(networks: dict[Subset, Network], labels: dict[str, str], *, full: bool) -> list[Change]:
    """The end against itself without a step (``full``), or the base with a step against itself."""
    anchor = max(networks, key=len) if full else min(networks, key=len)
    if not full and anchor:
        return []
    found: dict[str, tuple[Comparison, int | None]] = {}
    for steps, network in networks.items():
        differ = anchor ^ steps
        if len(differ) != 1 or (steps > anchor) == full:
            continue
        pair = (networks[anchor], network) if full else (network, networks[anchor])
        made = compare_groups(pair[0].group, pair[1].group)
        if made and _is_fair(*pair):
            macs = [one.row.macs for one in pair]
            change = macs[0] - macs[1] if macs[0] is not None and macs[1] is not None else None
            found[next(iter(differ))] = (made, change)
    tests = correct({step: made for step, (made, _) in found.items()})
    order = list(labels)
    return [
        Change(step, labels.get(step, step), tests[step], found[step][1])
        for step in sorted(found, key=lambda one: order.index(one) if one in order else len(order))
    ]


def _is_fair(one: Network, other: Network) -> bool:
    return one.row.data == other.row.data and one.group.code == other.group.code


def _shapley(
    study: Study, networks: dict[Subset, Network], players: list[str]
) -> tuple[Shapley | None, Shapley | None]:
    """Of accuracy and of MACs: exact where all sets are there, else from the sampled orders."""
    if not players:
        return None, None
    fixed = frozenset.intersection(*(set(steps) for steps in _networks(study)))
    known = {steps - fixed: one for steps, one in networks.items() if steps >= fixed}
    known = {steps: one for steps, one in known.items() if steps <= set(players)}
    top1 = {steps: one.row.top1 or 0.0 for steps, one in known.items()}
    macs = {steps: float(one.row.macs) for steps, one in known.items() if one.row.macs}
    noise = _noise_of_a_value(study.deviation, known.values())
    if len(players) <= MOST_EXACT and not plan_exact(players).missing(top1.keys()):
        return (
            shapley_exact(players, top1, noise=noise),
            shapley_exact(players, macs) if len(macs) == len(top1) else None,
        )
    orders = _orders(study, players, top1.keys())
    if not orders:
        return None, None
    return (
        shapley_sampled(orders, top1, noise=noise),
        shapley_sampled(orders, macs) if len(macs) == len(top1) else None,
    )


def _orders(study: Study, players: Sequence[str], known: Iterable[Subset]) -> tuple[Order, ...]:
    """The sampled orders whose networks are all there: draws begin alike, however many there are.

    The seed of the draw is the runs' ``orders_seed`` fact, else the default.
    """
    have = set(known)
    seeds = [row.facts["orders_seed"] for row in study.rows if "orders_seed" in row.facts]
    seed = int(seeds[0]) if seeds else 0
    orders: tuple[Order, ...] = ()
    for pairs in range(1, _PAIRS):
        more = sampled_orders(players, pairs, seed)
        if plan_orders(more[-2:]).missing(have):
            break
        orders = more
    return orders


def _noise_of_a_value(between: Deviation | None, networks: Iterable[Network]) -> Deviation | None:
    """The deviation of a mean over seeds."""
    counts = [len(one.row.seeds) for one in networks]
    if between is None or not counts:
        return None
    least = min(counts)
    return Deviation(between.points / math.sqrt(least), between.freedom, between.source)
