"""Anytime dense prediction with confidence (Liu et al., ICLR 2022): what does each part contribute?

    convnext-study study anytime --seeds 3

The arms: one exit, early exits, redesigned heads, confidence adaptivity, and random masks at the
same share as a control. On data other than signs, also one exit at several sizes, and exits that
exist only in training. docs/anytime.md says which parts are the authors'.

    convnext-study study anytime --data cityscapes:PATH          HRNet-W18 and W48, 484 epochs
    convnext-study study anytime --data pairs:PATH               any images and masks
    convnext-study study anytime --data figures                  joints of drawn people
    convnext-study study anytime --data mpii:PATH                joints, HRNet-W32, 210 epochs
    convnext-study study anytime --networks convnext_atto,roadmap_nano_patchify_stem

Runs: 5 per seed on digit-signs, of 375 steps each; 8 on other data, 4 on joints.
Cost: 68 s per run on one core, and a minute for measurements at the end: 3 seeds fit into 10
minutes on two idle cores.

Expect: mIoU climbs steeply from exit to exit, from 13 to 71 %. Confidence saves 38 % of the
multiply-accumulates without a visible loss, while random masks at the same share lose most of the
accuracy. For redesigned heads three seeds show no difference. On maps this small no time is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import select_records
from convnext_study.report.findings import Finding
from convnext_study.results.grouping import comparable
from convnext_study.runs.records import Record, Run
from convnext_study.studies.anytime.arms import runs_of
from convnext_study.studies.anytime.findings import findings

FOLDER = "anytime"  # in runs/, separate from the road map's rows
DATA = "digit-signs"
NETWORKS = "backbones: timm names, such as convnext_atto or roadmap_nano_gelu"


def runs(context: Context) -> list[Run]:
    return runs_of(context.data, context.seeds, context.recipe, context.changes, context.networks)


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    return findings(comparable(select_records(records, runs(context))))
