"""The first network with each single step: how much does each contribute alone?

    convnext-study study add_one_in --seeds 3

The first network is ResNet with the enhanced recipe: all of them use the training techniques.

Runs: 13 per seed, the first network and 12 with one step each. Cost on the nano road: about 25 s
per run on one idle core, so 3 minutes per seed on two.

Expect: order matters. "Depthwise conv" alone removes most of the MACs and loses some accuracy;
"inverting dimensions" alone makes the dense 3x3 convolution four times as wide, and the network
several times as expensive.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.results.attribution import add_one_in_effects
from convnext_study.results.effects import Effects
from convnext_study.results.statistics.subsets import coalitions_within
from convnext_study.runs.records import Record, Run


def runs(context: Context) -> list[Run]:
    return context.subsets(coalitions_within(context.steps, "base", 1), "add_one_in")


def report(records: Sequence[Record], context: Context) -> Effects | None:
    return add_one_in_effects(context.group_by_subset(records))
