"""What each step is worth, from the networks of a folder: taken away, alone, over all orders."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from convnext_study.results.attribution import (
    Order,
    Shapley,
    Subset,
    plan_orders,
    sampled_orders,
    shapley_exact,
    shapley_sampled,
)
from convnext_study.results.report.differences import compare_groups, deviation_of
from convnext_study.results.report.gather import Study
from convnext_study.results.report.networks import Family, Network, families
from convnext_study.results.statistics import Comparison, Deviation, correct
from convnext_study.results.summary import Row
from convnext_study.roadmap.paper import SECTIONS

_FEWEST = 3  # steps, below which a road map's own rows would pass for such a study
_MOST_PAIRS = 1000  # of orders

# What the gain is shared among: steps, or sections with several steps each, by name.
Players = Mapping[str, Subset]


@dataclass(frozen=True)
class Change:
    """What a step changes at one end of the road: points, and MACs of one image."""

    label: str
    comparison: Comparison
    macs: int | None


@dataclass(frozen=True)
class Worth:
    """What the steps of a road map are worth, as far as a folder has the networks for it.

    ``without`` is what the end has more than the network without a step, ``alone`` what a step
    adds to the base. ``shares`` are Shapley values of accuracy in points, ``macs`` of MACs, both
    of what ``labels`` names. ``deviation`` between seeds, pooled over all these networks, is what
    changes are tested with; without several seeds each pair is tested by its own runs.
    """

    name: str
    rows: list[Row]
    without: list[Change]
    alone: list[Change]
    labels: dict[str, str]
    shares: Shapley | None
    macs: Shapley | None
    deviation: Deviation | None

    @property
    def order(self) -> list[str]:
        """What the Shapley values are of, in the road's order."""
        return [name for name in self.labels if self.shares and name in self.shares.shares]


def find_worth(studies: Iterable[Study]) -> list[Worth]:
    """One for each family of networks that leaves steps out, adds single ones, or mixes them."""
    found = (_worth(family) for family in families(studies))
    return [one for one in found if one.without or one.alone or one.shares]


def _worth(family: Family) -> Worth:
    labels = {step.name: step.label for step in family.road.steps}
    networks = family.networks
    full = max(
        (frozenset(family.road.adopted()), max(networks, key=len)), key=networks.__contains__
    )
    rows = [one.row for one in networks.values()]
    deviation = deviation_of(rows, "networks")
    shares, macs, named = _shapley(family)
    return Worth(
        name=f"worth-{family.road.regime}",
        rows=rows,
        without=_near(networks, full, labels, deviation, away=True),
        alone=_near(networks, family.technique, labels, deviation, away=False),
        labels={**labels, **named},
        shares=shares,
        macs=macs,
        deviation=deviation,
    )


def _near(
    networks: Mapping[Subset, Network],
    anchor: Subset,
    labels: Mapping[str, str],
    deviation: Deviation | None,
    *,
    away: bool,
) -> list[Change]:
    """The anchor against itself without a step (``away``), or with one more against itself."""
    if anchor not in networks:
        return []
    found: dict[str, tuple[Comparison, int | None]] = {}
    for steps, network in networks.items():
        differ = anchor ^ steps
        if len(differ) != 1 or (steps < anchor) != away:
            continue
        more, less = (networks[anchor], network) if away else (network, networks[anchor])
        if made := compare_groups(more.group, less.group, deviation):
            macs = (more.row.macs, less.row.macs)
            change = None if macs[0] is None or macs[1] is None else macs[0] - macs[1]
            found[next(iter(differ))] = (made, change)
    if len(found) < _FEWEST:
        return []
    tests = correct({step: made for step, (made, _) in found.items()})
    known = [step for step in labels if step in found]
    order = [*known, *(step for step in found if step not in labels)]
    return [Change(labels.get(step, step), tests[step], found[step][1]) for step in order]


def _shapley(family: Family) -> tuple[Shapley | None, Shapley | None, dict[str, str]]:
    """Of accuracy and of MACs, among steps or else among sections, whichever was trained for."""
    steps = {step.name: step for step in family.road.steps if step.adopted and step.sets}
    sections: dict[str, Subset] = {}
    for name, step in steps.items():
        sections[step.section] = sections.get(step.section, frozenset()) | {name}
    for players in ({name: frozenset([name]) for name in steps}, sections):
        known = _known(family, players)
        shares, macs = _shares(players, known)
        if shares:
            return shares, macs, {name: SECTIONS.get(name, name) for name in sections}
    return None, None, {}


def _known(family: Family, players: Players) -> dict[Subset, Network]:
    """The networks that have the training technique and whole players, by the players' names."""
    found = {}
    for steps, network in family.networks.items():
        inside = frozenset(name for name, own in players.items() if own <= steps)
        if steps == family.technique.union(*(players[name] for name in inside)):
            found[inside] = network
    return found


def _shares(
    players: Players, known: Mapping[Subset, Network]
) -> tuple[Shapley | None, Shapley | None]:
    top1 = {names: one.row.top1 or 0.0 for names, one in known.items()}
    macs = {names: float(one.row.macs) for names, one in known.items() if one.row.macs is not None}
    noise = _noise_of_a_mean([one.row for one in known.values()])
    counted = len(macs) == len(top1)
    if len(known) == 2 ** len(players):
        names = list(players)
        exact = shapley_exact(names, top1, noise=noise)
        return exact, shapley_exact(names, macs) if counted else None
    orders = _orders(list(players), known.keys())
    if not orders:
        return None, None
    sampled = shapley_sampled(orders, top1, noise=noise)
    return sampled, shapley_sampled(orders, macs) if counted else None


def _orders(players: list[str], known: Collection[Subset]) -> tuple[Order, ...]:
    """The sampled orders whose networks are all there: draws begin alike, however many follow."""
    orders: tuple[Order, ...] = ()
    for pairs in range(1, _MOST_PAIRS):
        more = sampled_orders(players, pairs)
        if plan_orders(more[-2:]).missing(known):
            break
        orders = more
    return orders


def _noise_of_a_mean(rows: list[Row]) -> Deviation | None:
    """The deviation of a mean over seeds, as many as the row with the fewest has."""
    between = deviation_of(rows, "networks")
    if between is None:
        return None
    least = min(len(row.seeds) for row in rows)
    return Deviation(between.points / math.sqrt(least), between.freedom, between.source)
