"""What steps change at a place of the road, in points and in MACs, as tables with their noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

from convnext_study.records import Record
from convnext_study.results.attribution.measured import Finding, Findings, Measured
from convnext_study.results.attribution.subsets import (
    Order,
    Side,
    pair_interactions,
    prefixes,
)
from convnext_study.results.statistics import (
    Comparison,
    Interval,
    compare,
    correct,
)
from convnext_study.results.statistics.intervals import t_quantile


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
    return Findings(kind=name, title=title, head="added here", lines=lines, notes=_how(measured))


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


def _compared(
    measured: Measured,
    pairs: Mapping[str, tuple[Sequence[Record], Sequence[Record]]],
    trained: int,
) -> tuple[Finding, ...]:
    """First against second of each pair; ``trained`` is the one that the line is about."""
    tests = correct(
        {name: compare(*pair, deviation=measured.deviation) for name, pair in pairs.items()}
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
    notes = []
    if measured.deviation is None:
        notes.append(
            "One seed: intervals and tests (exact McNemar, Holm's correction) cover the choice of "
            "test images only. What another seed would change takes several seeds."
        )
    else:
        between = measured.deviation
        notes.append(
            f"The deviation between seeds is {between.points:.2f} points, pooled over "
            f"{between.source} ({between.freedom:g} degrees of freedom); p after Holm's correction."
        )
    if measured.versions > 1:
        notes.append(f"Runs of {measured.versions} versions of the code (commits) are mixed.")
    return tuple(notes)
