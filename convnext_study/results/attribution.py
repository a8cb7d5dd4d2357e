"""Attribution: what each step contributes to the study's metric and to MACs, by several methods.

Each function returns one table of `Effects` from the runs that `group_by_subset` counts; terminal,
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
    """Interactions of two steps at the end of the road, where all other steps are present; for the
    pairs that are trained."""
    means, macs, everything = results.worth(), results.macs(), frozenset(results.steps)
    rows = []
    for pair in combinations(results.steps, 2):
        subsets = [frozenset(members) for members in ((), pair[:1], pair[1:], pair)]
        rest = everything - frozenset(pair)
        if not all(rest | subset in means for subset in subsets):
            continue
        # v(both) - v(second) - v(first) + v(neither): above 0 they need each other.
        signs = (1, -1, -1, 1)
        diff, macs_diff = (
            sum(sign * values[rest | subset] for sign, subset in zip(signs, subsets, strict=True))
            for values in (means, macs)
        )
        std = results.std_of_mean(rest | subset for subset in subsets)
        half = 2 * std.std * t_quantile(std.df, CONFIDENCE) if std else None
        interval = None if half is None else Interval(diff - half, diff + half)
        label = " and ".join(results.road.step(name).label for name in pair)
        rows.append(
            Effect(name="+".join(pair), label=label, diff=diff, macs=macs_diff, interval=interval)
        )
    if not rows:
        return None
    note = (
        "Above 0 the two steps need each other, below 0 either is enough. Intervals are for "
        f"single pairs: of {len(rows)} pairs, about {max(1, round(len(rows) / 20))} lie outside "
        "by chance."
    )
    return Effects(
        kind="pairs_end",
        title="Pairs of steps, at the last network",
        effect_label="together more",
        metric=results.metric,
        rows=tuple(sorted(rows, key=lambda row: -abs(row.diff))),
        notes=(note, *noise_notes(results, pooled=True)),
    )


def shapley_effects(results: SubsetResults) -> Effects | None:
    """Each step's Shapley value, exact where every set is trained, else over the sampled orders
    whose networks are all trained (a longer sample starts with the same orders). None without any.
    """
    players = {step: frozenset([step]) for step in results.steps}
    labels = {step: results.road.step(step).label for step in results.steps}
    return _shapley(results, players, labels, "step")


def section_effects(results: SubsetResults) -> Effects | None:
    """Each section's exact Shapley value, its steps taken together; None while a set is missing."""
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
    steps_of: dict[Coalition, Coalition] = {}  # of each set of players
    for steps in results.networks:
        members = frozenset(name for name in names if players[name] <= steps)
        if steps == frozenset[str]().union(*(players[name] for name in members)):
            steps_of[members] = steps
    means, macs = (
        {members: values[steps] for members, steps in steps_of.items()}
        for values in (results.worth(), results.macs())
    )
    if len(steps_of) == 2 ** len(names):
        std = results.std_of_mean(steps_of.values())
        gains, costs = shapley_exact(names, means, noise=std), shapley_exact(names, macs)
    else:
        sampled = sampled_permutations(names, _MOST_PAIRS) if what == "step" else ()
        pairs = takewhile(
            lambda pair: all(members in steps_of for members in coalitions_of(pair)),
            zip(sampled[::2], sampled[1::2], strict=True),
        )
        orders = [order for pair in pairs for order in pair]
        if not orders:
            return None
        std = results.std_of_mean(steps_of[members] for members in coalitions_of(orders))
        gains, costs = shapley_sampled(orders, means, noise=std), shapley_sampled(orders, macs)
    rows = [
        Effect(
            name=name,
            label=label,
            diff=share.value,
            macs=costs.shares[name].value,
            interval=share.interval,
        )
        for name, label in labels.items()
        for share in (gains.shares[name],)
    ]
    return Effects(
        kind=f"shapley_{what}s",
        title=f"Shapley value of each {what}: its gain averaged over orders",
        effect_label="Shapley value",
        metric=results.metric,
        rows=tuple(rows),
        total=Effect(
            name="total", label="last network over first", diff=gains.total, macs=costs.total
        ),
        notes=(
            f"{results.metric.title}: {gains.method}. They add up to "
            f"{gains.total:+.{results.metric.decimals}f} {results.metric.step_unit}, the gain of "
            "the last network over the first. Intervals are for single values, not adjusted for "
            "their number, and do not decide significance.",
            *results.excluded,
        ),
    )


_FEWEST = 3  # steps; below it a road map's own rows would look like a study of single steps

Pair = tuple[Sequence[Record], Sequence[Record]]


@dataclass(frozen=True)
class Attribution:
    """The attribution tables of one road's steps on one data set, from a folder's networks."""

    name: str
    regime: str
    data: str
    tables: tuple[Effects, ...]


def attributions(records: Iterable[Record], *, any_commit: bool = False) -> list[Attribution]:
    """One per road map and data set whose steps were left out, added or combined in these runs."""
    records = list(records)
    output: list[Attribution] = []
    runs = [record.run for record in records]
    roads = {(run.metadata.get("regime"), run.data_identity): run.data for run in runs}
    for (regime, data_id), data in roads.items():
        if regime not in ROADMAPS:
            continue
        results = group_by_subset(records, get_roadmap(regime), data=data_id, any_commit=any_commit)
        single = (leave_one_out_effects(results), add_one_in_effects(results))
        mixed = (shapley_effects(results), section_effects(results))
        tables = [table for table in single if table and len(table.rows) >= _FEWEST]
        tables += [table for table in mixed if table]
        if tables:
            earlier = sum(regime == attribution.regime for attribution in output)
            name = f"attribution-{regime}" + (f"-{earlier + 1}" if earlier else "")
            output.append(Attribution(name, regime, data, tuple(tables)))
    return output


def leave_one_out_effects(results: SubsetResults) -> Effects | None:
    """What the last network loses without each step; None while the last one is not trained."""
    steps = frozenset(results.steps)
    without = {
        name: results.networks.get(steps - {name}, ()) if name in steps else results.without_recipe
        for name in results.road.adopted()
    }
    table = Effects(
        kind="leave_one_out",
        title="The last network without each step",
        effect_label="lost without it",
    )
    end = results.networks.get(steps, ())
    return _test(results, {name: (end, runs) for name, runs in without.items()}, table, index=1)


def add_one_in_effects(results: SubsetResults) -> Effects | None:
    """What each step alone adds to the base; None while the base is not trained."""
    base = results.networks.get(frozenset(), ())
    alone = {step: results.networks.get(frozenset([step]), ()) for step in results.steps}
    table = Effects(
        kind="add_one_in",
        title="The first network (enhanced recipe) with each single step",
        effect_label="added alone",
    )
    return _test(results, {step: (runs, base) for step, runs in alone.items()}, table)


def permutation_effects(
    results: SubsetResults, order: Permutation, kind: str, title: str
) -> Effects | None:
    """What each step adds when the steps come in this order; None while no pair is trained."""
    path = [results.networks.get(subset, ()) for subset in prefixes(order)]
    pairs = {step: (path[i + 1], path[i]) for i, step in enumerate(order)}
    return _test(results, pairs, Effects(kind=kind, title=title, effect_label="added here"))


def _test(
    results: SubsetResults, pairs: Mapping[str, Pair], table: Effects, index: int = 0
) -> Effects | None:
    """The table with the first of each pair tested against the second, where both are trained.

    ``index`` is which of the two a row describes. A shared counterpart is described in the notes.
    """
    pairs = {name: pair for name, pair in pairs.items() if all(pair)}
    if not pairs:
        return None
    tests = holm_adjust({name: compare(*pair) for name, pair in pairs.items()})
    rows = [
        _row(name, results.road.step(name).label, tests[name], pair, index)
        for name, pair in pairs.items()
    ]
    metric, notes = results.metric, list[str]()
    counterpart = next(iter(pairs.values()))[1 - index]
    if all(pair[1 - index] is counterpart for pair in pairs.values()):
        network = results_of(counterpart)
        value = fmean(result.value for result in network)
        against = f"{value:.{metric.decimals}f} {metric.unit}".rstrip()
        notes = [
            f"Compared with {against} and {network[0].cost.macs:,} MACs, {len(network)} seed(s)."
        ]
    notes += noise_notes(results)
    return replace(table, rows=tuple(rows), notes=tuple(notes), metric=metric)


def _row(name: str, label: str, test: Comparison, pair: Pair, index: int) -> Effect:
    trained, macs = results_of(pair[index]), [results_of(runs)[0].cost.macs for runs in pair]
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
        network_macs=macs[index],
        seeds=len(trained),
    )
