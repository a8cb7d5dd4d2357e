"""Anytime dense prediction with confidence (Liu et al., ICLR 2022): what each part of it is worth.

    convnext-study study anytime --seeds 3

One exit, early exits, redesigned heads, confidence adaptivity, and as a control random masks at the
same share; on other data than signs one exit at several sizes too, and exits that are there in
training alone. docs/anytime.md says what is the authors' in it.

    convnext-study study anytime --data cityscapes:PATH          HRNet-W18 and W48, 484 epochs
    convnext-study study anytime --data pairs:PATH               any images and masks
    convnext-study study anytime --data figures                  joints of drawn people
    convnext-study study anytime --data mpii:PATH                joints, HRNet-W32, 210 epochs
    convnext-study study anytime --networks convnext_atto,roadmap_nano_patchify_stem

Runs: 5 a seed on digit-signs, of 375 steps each; 8 on other data, 4 of joints.
Cost: 68 s of one core a run, and a minute for the trained networks at the end: 3 seeds fit into 10
minutes on two cores of their own.

Expect: mIoU climbs steeply with the exit, from 13 to 71 %. Confidence saves 38 % of the
multiply-accumulates and no loss shows, while masks by chance at the same share lose most of the
accuracy. Redesigned heads are neither better nor worse than three seeds can show. Time is not saved
on maps this small.
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

FOLDER = "anytime"  # in runs/, apart from the road map's rows
DATA = "digit-signs"
NETWORKS = "backbones: names of timm, such as convnext_atto or roadmap_nano_gelu"


def runs(context: Context) -> list[Run]:
    return runs_of(context.data, context.seeds, context.recipe, context.changes, context.networks)


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    return findings(comparable(select_records(records, runs(context))))
