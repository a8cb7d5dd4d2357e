"""The same steps in other orders: backwards, and shuffled twice.

    convnext-study study reorder --seeds 3

Runs: 46 per seed: 13 for the road itself, reused if the folder has them, and 11 for each further
order, which shares both ends. Cost on the nano road: about 25 s per run on one idle core, and
several times that while a 7x7 kernel is still dense; 15 minutes per seed on two.

Expect: every order ends in the same network, so the gains of each order have the same sum; the gain
of a single step depends on the steps before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.results.attribution import permutation_effects
from convnext_study.results.effects import Effects
from convnext_study.results.statistics.subsets import (
    Permutation,
    coalitions_of,
    sampled_permutations,
)
from convnext_study.runs.records import Record, Run


def orders(context: Context) -> dict[str, Permutation]:
    steps = context.steps
    first, second = sampled_permutations(steps, 2)[::2]
    return {
        "the road's order": steps,
        "the reverse order": steps[::-1],
        "a shuffled order": first,
        "another shuffled order": second,
    }


def runs(context: Context) -> list[Run]:
    needed = coalitions_of(orders(context).values())
    return context.subsets(needed, "reorder")


def report(records: Sequence[Record], context: Context) -> list[Effects | None]:
    results = context.group_by_subset(records)
    return [
        permutation_effects(results, order, f"order_{place}", f"What each step adds in {title}")
        for place, (title, order) in enumerate(orders(context).items(), 1)
    ]
