"""The Shapley value of each step: its gain, in accuracy and in MACs, averaged over orders.

    convnext-study study attribution                      # 8 sampled orders
    convnext-study study attribution --permutations 16    # 8 more, narrower intervals
    convnext-study study attribution --players section    # exact, over the paper's sections

Runs: 8 orders (4 draws, each with its reverse) of 12 steps visit 13 networks each, 104 in all, of
which 82 are distinct; runs that the folder already has from other studies are reused. By section,
the steps of sections 2.2 to 2.6 are added together, and all 2^5 = 32 subsets are trained, 31 if the
last network exists. The training techniques belong to the recipe and are used in all of them.

Cost on the nano road: about 25 s per run on one idle core, and several times that for the twenty
networks whose 7x7 kernel is still dense; half an hour per seed on two.

Expect: the shares add up exactly to the gain of the last network over the first. The intervals
cover the choice of orders, in four pairs, and the noise between seeds if the folder has several
seeds of some networks. "Increase width" has most of the MACs.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.results.attribution import section_effects, shapley_effects, steps_of_sections
from convnext_study.results.effects import Effects
from convnext_study.results.statistics.subsets import (
    all_coalitions,
    prefixes,
    sampled_permutations,
)
from convnext_study.roadmap.extensions import sections
from convnext_study.runs.records import Record, Run


def runs(context: Context) -> list[Run]:
    if context.players == "section":
        needed = all_coalitions(tuple(sections(context.road)))
        subsets = [steps_of_sections(context.road, names) for names in needed]
        return context.subsets(subsets, "sections")
    orders = sampled_permutations(context.steps, context.permutations // 2)
    return context.subsets([subset for order in orders for subset in prefixes(order)], "subset")


def report(records: Sequence[Record], context: Context) -> list[Effects | None]:
    results = context.group_by_subset(records)
    return [section_effects(results), shapley_effects(results)]
