"""The last network without each step: how much does each contribute at the end of the road?

    convnext-study study leave_one_out --seeds 3

Runs: 14 per seed: the last network, 12 networks without one step each, and the last network with
the first row's recipe. The last network is reused if the folder already has it.
Cost on the nano road: about 25 s per run on one idle core, so 3 minutes per seed on two.

Expect: few significant steps with three seeds, more with five. MACs change with a step too
(without "increase width" the network is less than half as large): read both columns, or add
``--match-macs end``.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.results.attribution import leave_one_out_effects
from convnext_study.results.effects import Effects
from convnext_study.results.statistics.subsets import coalitions_within
from convnext_study.runs.records import Record, Run

KIND = "leave_one_out"


def runs(context: Context) -> list[Run]:
    subsets = coalitions_within(context.steps, "end", 1)
    return [*context.subsets(subsets, KIND), *context.without_recipe()]


def report(records: Sequence[Record], context: Context) -> Effects | None:
    return leave_one_out_effects(context.group_by_subset(records))
