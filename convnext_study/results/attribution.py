"""Attribution: what each step contributes in the study's metric and in MACs, by several methods.

Each function makes one table of `Effects` from the runs that `group_by_subset` counts; terminal,
files and page show the same objects. `joint_effects` has those of several steps together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from convnext_study.results.compare import IMAGES_ONLY, Comparison, compare, holm_adjust
from convnext_study.results.effects import Effect, Effects, noise_notes
from convnext_study.results.joint_effects import section_effects, shapley_effects
from convnext_study.results.statistics import Interval
from convnext_study.results.statistics.subsets import Permutation, prefixes
from convnext_study.results.subset_results import SubsetResults, group_by_subset, results_of
from convnext_study.roadmap import ROADMAPS, get_roadmap
from convnext_study.runs.records import Record

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
    tests = holm_adjust({name: compare(*pair, std=results.std) for name, pair in pairs.items()})
    rows = [
        _row(name, results.road.step(name).label, tests[name], pair, about)
        for name, pair in pairs.items()
    ]
    metric, notes = results.metric, []
    alone = sorted(
        {
            test.difference.method.partition(" on ")[0]
            for test in tests.values()
            if test.scope == IMAGES_ONLY
        }
    )
    other = next(iter(pairs.values()))[1 - about]
    if all(pair[1 - about] is other for pair in pairs.values()):
        own = results_of(other)
        value = fmean(result.value for result in own)
        against = f"{value:.{metric.decimals}f} {metric.unit}".rstrip()
        notes = [f"Against {against} and {own[0].cost.macs:,} MACs, {len(own)} seed(s)."]
    notes += [
        *noise_notes(results, " or ".join(alone)),
        f"Holm p is adjusted over {len(pairs)} comparisons; 0.05 or less is significant.",
    ]
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
