"""Pruning against training from scratch (Liu et al., ICLR 2019), also on current networks.

    convnext-study study pruning --seeds 3
    convnext-study study pruning --networks roadmap:separate_downsampling
    convnext-study study pruning --networks roadmap --target half
    convnext-study study pruning --data cifar10:PATH --seeds 5

Does a pruned network need its large parent, or is it as accurate when trained from scratch with the
same computation? Weights are crossed with schedules, architectures with weights, methods with
controls; each pair of arms is tested for a difference and for equivalence. See docs/pruning.md.

Runs: on digits and folders 39 per seed, of a VGG-16 an eighth as wide for 12 epochs, which is ours.
With ``--data cifar10:PATH``, or ``--recipe published``, the published networks with their recipes;
that needs a GPU. ``--networks`` selects others: ``roadmap:STEP``, ``roadmap`` for every row,
``timm:NAME``, ``resnet56``.

Cost: 3 seeds took 8 min 43 s on two idle cores, without Scratch-B of masks.

Expect, on digits: Scratch-B at 98 to 99 %, above the large network (98 %) of equal computation;
fine-tuning at 75 to 97; inherited weights ahead of random ones at equal epochs, and level with them
at equal computation.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import select_records
from convnext_study.report.findings import Finding
from convnext_study.results.grouping import comparable
from convnext_study.runs.records import Record, Run
from convnext_study.studies.pruning.plans import NETWORKS, TARGETS, runs_of
from convnext_study.studies.pruning.tables import findings

__all__ = ["DATA", "FOLDER", "NETWORKS", "TARGETS", "report", "runs"]

DATA = "digits"
FOLDER = "pruning"  # in runs/, apart from the road map's rows


def runs(context: Context) -> list[Run]:
    return runs_of(context)


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    return findings(comparable(select_records(records, runs(context))))
