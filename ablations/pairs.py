"""Which steps depend on each other? The last network without each pair of steps.

    convnext-study study pairs --seeds 3

Runs: 79 per seed: the last network, 12 without one step, 66 without two. Those of leave_one_out.py
are reused. Cost on the nano road: about 25 s per run on one idle core, so about 17 minutes per seed
on two.

Expect: an interaction is a difference of four accuracies, so its noise is twice that of one. Of 66
pairs three or four are outside their intervals by chance. The large effects are between "depthwise
conv", "increase width" and "inverting dimensions", which change each other's cost.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.results.attribution import pair_effects
from convnext_study.results.effects import Effects
from convnext_study.results.statistics.subsets import coalitions_within
from convnext_study.runs.records import Record, Run


def runs(context: Context) -> list[Run]:
    return context.subsets(coalitions_within(context.steps, "end", 2), "pairs")


def report(records: Sequence[Record], context: Context) -> Effects | None:
    return pair_effects(context.group_by_subset(records))
