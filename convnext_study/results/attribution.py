"""Attribution: what each step contributes in the study's metric and in MACs, by several methods.

Each function makes one table of `Effects` from the runs that `group_by_subset` counts; terminal,
files and page show the same objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, takewhile
from statistics import fmean

from convnext_study.results.compare import Comparison, compare, holm_adjust
from convnext_study.results.effects import Effect, Effects, noise_notes
from convnext_study.results.statistics.intervals import CONFIDENCE, Interval, t_quantile
from convnext_study.results.statistics.subsets import (
    Coalition,
    Permutation,
    coalitions_of,
    prefixes,
    sampled_permutations,
    shapley_exact,
    shapley_sampled,
)
from convnext_study.results.subset_results import SubsetResults, group_by_subset, results_of
from convnext_study.roadmap import ROADMAPS, Roadmap, get_roadmap
from convnext_study.roadmap.extensions import sections
from convnext_study.roadmap.paper import SECTIONS
from convnext_study.runs.records import Record

_MOST_PAIRS = 1000  # of sampled orders


def pair_effects(results: SubsetResults) -> Effects | None:
    """How much more two steps are worth together than apart at the end of the road, where all its
    other steps are; for the pairs that are trained."""
    means, macs, everything = results.worth(), results.macs(), frozenset(results.steps)
    rows = []
    for pair in combinations(results.steps, 2):
        inner = [frozenset(pick) for pick in ((), pair[:1], pair[1:], pair)]
        rest = everything - frozenset(pair)
        if not all(rest | own in means for own in inner):
            continue
        # v(both) - v(one) - v(other) + v(neither): above 0 they need each other.
        signs = (1, -1, -1, 1)
        diff, more = (
            sum(sign * values[rest | own] for sign, own in zip(signs, inner, strict=True))
            for values in (means, macs)
        )
        std = results.std_of_mean(rest | own for own in inner)
        half = 2 * std.std * t_quantile(std.df, CONFIDENCE) if std else None
        interval = None if half is None else Interval(diff - half, diff + half)
        label = " and ".join(results.road.step(name).label for name in pair)
        rows.append(
            Effect(name="+".join(pair), label=label, diff=diff, macs=more, interval=interval)
        )
    if not rows:
        return None
    note = (
        "Above 0 the two need each other, below 0 either will do. Intervals are of one pair alone: "
        f"of {len(rows)} pairs about {max(1, round(len(rows) / 20))} lie outside by chance."
    )
    return Effects(
        kind="pairs_end",
        title="Pairs of steps, seen from the last network",
        effect_label="together more",
        metric=results.metric,
        rows=tuple(sorted(rows, key=lambda row: -abs(row.diff))),
        notes=(note, *noise_notes(results, pooled=True)),
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
            lambda pair: all(inside in known for inside in coalitions_of(pair)),
            zip(drawn[::2], drawn[1::2], strict=True),
        )
        orders = [order for pair in pairs for order in pair]
        if not orders:
            return None
        std = results.std_of_mean(known[inside] for inside in coalitions_of(orders))
        found, cost = shapley_sampled(orders, means, noise=std), shapley_sampled(orders, macs)
    rows = [
        Effect(
            name=name,
            label=label,
            diff=share.value,
            macs=cost.shares[name].value,
            interval=share.interval,
        )
        for name, label in labels.items()
        for share in (found.shares[name],)
    ]
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
            "number, and no value is called significant by them.",
            *results.excluded,
        ),
    )


_FEWEST = 3  # steps, below which a road map's own rows would pass for a study of single steps

Pair = tuple[Sequence[Record], Sequence[Record]]


@dataclass(frozen=True)
class Attribution:
    """All that a folder's networks of one road say of its steps, on one data set."""

    name: str
    regime: str
    data: str
    tables: tuple[Effects, ...]


def attributions(records: Iterable[Record], *, any_commit: bool = False) -> list[Attribution]:
    """One for each road map and data set whose steps a folder left out, added or mixed."""
    records = list(records)
    found: list[Attribution] = []
    requested = {
        (one.run.metadata.get("regime"), one.run.data_identity): one.run.data for one in records
    }
    for (regime, which), data in requested.items():
        if regime not in ROADMAPS:
            continue
        results = group_by_subset(records, get_roadmap(regime), data=which, any_commit=any_commit)
        near = (leave_one_out_effects(results), add_one_in_effects(results))
        mixed = (shapley_effects(results), section_effects(results))
        tables = [one for one in near if one and len(one.rows) >= _FEWEST]
        tables += [one for one in mixed if one]
        if tables:
            again = sum(regime == one.regime for one in found)
            name = f"attribution-{regime}" + (f"-{again + 1}" if again else "")
            found.append(Attribution(name, regime, data, tuple(tables)))
    return found


def leave_one_out_effects(results: SubsetResults) -> Effects | None:
    """What the last network loses without each step; None while the last one is not trained."""
    steps = frozenset(results.steps)
    others = {
        name: results.networks.get(steps - {name}, ()) if name in steps else results.without_recipe
        for name in results.road.adopted()
    }
    table = Effects(
        kind="leave_one_out",
        title="The last network without each step",
        effect_label="lost without it",
    )
    end = results.networks.get(steps, ())
    return _tested(results, {name: (end, own) for name, own in others.items()}, table, about=1)


def add_one_in_effects(results: SubsetResults) -> Effects | None:
    """What each step alone adds to the base; None while the base is not trained."""
    base = results.networks.get(frozenset(), ())
    alone = {step: results.networks.get(frozenset([step]), ()) for step in results.steps}
    table = Effects(
        kind="add_one_in",
        title="The first network (enhanced recipe) with each single step",
        effect_label="added alone",
    )
    return _tested(results, {step: (own, base) for step, own in alone.items()}, table)


def permutation_effects(
    results: SubsetResults, order: Permutation, kind: str, title: str
) -> Effects | None:
    """What each step adds when the steps come in this order; None while none can be said."""
    along = [results.networks.get(subset, ()) for subset in prefixes(order)]
    pairs = {step: (along[place + 1], along[place]) for place, step in enumerate(order)}
    return _tested(results, pairs, Effects(kind=kind, title=title, effect_label="added here"))


def _tested(
    results: SubsetResults, pairs: Mapping[str, Pair], table: Effects, about: int = 0
) -> Effects | None:
    """The table with the first of each pair of runs tested against the second, where both are.

    ``about`` is which of the two a row is about. What the others have in common is said below.
    """
    pairs = {name: pair for name, pair in pairs.items() if all(pair)}
    if not pairs:
        return None
    tests = holm_adjust({name: compare(*pair) for name, pair in pairs.items()})
    rows = [
        _row(name, results.road.step(name).label, tests[name], pair, about)
        for name, pair in pairs.items()
    ]
    metric, notes = results.metric, list[str]()
    other = next(iter(pairs.values()))[1 - about]
    if all(pair[1 - about] is other for pair in pairs.values()):
        own = results_of(other)
        value = fmean(result.value for result in own)
        against = f"{value:.{metric.decimals}f} {metric.unit}".rstrip()
        notes = [f"Against {against} and {own[0].cost.macs:,} MACs, {len(own)} seed(s)."]
    notes += noise_notes(results)
    return replace(table, rows=tuple(rows), notes=tuple(notes), metric=metric)


def _row(name: str, label: str, test: Comparison, pair: Pair, about: int) -> Effect:
    trained, macs = results_of(pair[about]), [results_of(runs)[0].cost.macs for runs in pair]
    sign, (low, high) = test.metric.sign, test.difference.interval
    return Effect(
        name=name,
        label=label,
        diff=sign * test.difference.diff,
        macs=macs[0] - macs[1],
        interval=Interval(low, high) if sign > 0 else Interval(-high, -low),
        p=test.difference.p,
        p_adjusted=test.p_adjusted,
        significant=test.significant,
        value=fmean(result.value for result in trained),
        network_macs=macs[about],
        seeds=len(trained),
    )
