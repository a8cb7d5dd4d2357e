"""What steps are worth together: in pairs, and shared out over all orders (Shapley)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations, takewhile

from convnext_study.results.effects import Effect, Effects, noise_notes
from convnext_study.results.statistics import Interval
from convnext_study.results.statistics.intervals import CONFIDENCE, t_quantile
from convnext_study.results.statistics.shapley import shapley_exact, shapley_sampled
from convnext_study.results.statistics.subsets import (
    Coalition,
    Side,
    coalitions_of,
    pair_interactions,
    sampled_permutations,
)
from convnext_study.results.subset_results import SubsetResults
from convnext_study.roadmap import Roadmap
from convnext_study.roadmap.extensions import sections
from convnext_study.roadmap.paper import SECTIONS

_MOST_PAIRS = 1000  # of sampled orders


def pair_effects(results: SubsetResults, side: Side) -> Effects | None:
    """How much more two steps are worth together than apart; for the pairs that are trained."""
    means, macs, everything = results.worth(), results.macs(), frozenset(results.steps)
    rows = []
    for pair in combinations(results.steps, 2):
        inner = [frozenset(pick) for pick in ((), pair[:1], pair[1:], pair)]
        # Seen within the pair, the network's other steps stand still.
        rest = frozenset[str]() if side == "base" else everything - frozenset(pair)
        if not all(rest | own in means for own in inner):
            continue
        diff, more = (
            pair_interactions(pair, {own: values[rest | own] for own in inner}, side)[pair]
            for values in (means, macs)
        )
        std = results.std_of_mean(rest | own for own in inner)
        half = 2 * std.std * t_quantile(std.df, CONFIDENCE) if std else None
        interval = None if half is None else Interval(diff - half, diff + half)
        label = " and ".join(results.road.step(name).label for name in pair)
        rows.append(_unadjusted("+".join(pair), label, diff, more, interval))
    if not rows:
        return None
    note = (
        "Above 0 the two need each other, below 0 either will do. Intervals are of one pair alone: "
        f"of {len(rows)} pairs about {max(1, round(len(rows) / 20))} lie outside by chance."
    )
    return Effects(
        kind=f"pairs_{side}",
        title=f"Pairs of steps, seen from the {'last' if side == 'end' else 'first'} network",
        effect_label="together more",
        metric=results.metric,
        rows=tuple(sorted(rows, key=lambda row: -abs(row.diff))),
        notes=(note, *noise_notes(results)),
    )


def shapley_effects(results: SubsetResults) -> Effects | None:
    """Each step's Shapley value, exact where every set is trained, else over the sampled orders
    whose networks are all there: draws begin alike, however many follow. None without any.
    """
    players = {step: frozenset([step]) for step in results.steps}
    labels = {step: results.road.step(step).label for step in results.steps}
    return _shapley(results, players, labels, "step")


def section_effects(results: SubsetResults) -> Effects | None:
    """Each section's exact Shapley value, all its steps together; None while a set is missing."""
    players = {name: steps_of_sections(results.road, [name]) for name in sections(results.road)}
    labels = {name: f"{name} {SECTIONS.get(name, '')}".rstrip() for name in players}
    return _shapley(results, players, labels, "section")


def steps_of_sections(road: Roadmap, names: Iterable[str]) -> Coalition:
    """All steps of these sections of the paper."""
    return frozenset(step for name in names for step in sections(road)[name])


def _shapley(
    results: SubsetResults, players: Mapping[str, Coalition], labels: Mapping[str, str], what: str
) -> Effects | None:
    names = tuple(players)
    known: dict[Coalition, Coalition] = {}  # a set of players, and the steps that these have
    for steps in results.networks:
        inside = frozenset(name for name in names if players[name] <= steps)
        if steps == frozenset[str]().union(*(players[name] for name in inside)):
            known[inside] = steps
    means, macs = (
        {inside: values[steps] for inside, steps in known.items()}
        for values in (results.worth(), results.macs())
    )
    if len(known) == 2 ** len(names):
        std = results.std_of_mean(known.values())
        found, cost = shapley_exact(names, means, noise=std), shapley_exact(names, macs)
    else:
        drawn = sampled_permutations(names, _MOST_PAIRS) if what == "step" else ()
        pairs = takewhile(
            lambda pair: not coalitions_of(pair).missing(known),
            zip(drawn[::2], drawn[1::2], strict=True),
        )
        orders = [order for pair in pairs for order in pair]
        if not orders:
            return None
        std = results.std_of_mean(known[inside] for inside in coalitions_of(orders).subsets)
        found, cost = shapley_sampled(orders, means, noise=std), shapley_sampled(orders, macs)
    rows = [
        _unadjusted(name, label, share.value, cost.shares[name].value, share.interval)
        for name, label in labels.items()
        for share in (found.shares[name],)
    ]
    if std is None:  # what another seed would change is in no interval
        rows = [replace(row, significant=None) for row in rows]
    return Effects(
        kind=f"shapley_{what}s",
        title=f"Shapley value of each {what}: its gain averaged over orders",
        effect_label="Shapley value",
        metric=results.metric,
        rows=tuple(rows),
        total=Effect(
            name="total", label="last network over first", diff=found.total, macs=cost.total
        ),
        notes=(
            f"{results.metric.title}: {found.method}. They add up to "
            f"{found.total:+.{results.metric.decimals}f} {results.metric.step_unit}, what the last "
            "network has over the first. Intervals are of one value alone, not adjusted for their "
            "number; significant is an interval that excludes zero.",
            *results.excluded,
        ),
    )


def _unadjusted(
    name: str, label: str, diff: float, macs: float, interval: Interval | None
) -> Effect:
    significant = interval.excludes_zero if interval else None
    return Effect(
        name=name, label=label, diff=diff, macs=macs, interval=interval, significant=significant
    )
