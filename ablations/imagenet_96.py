"""The paper's road on ImageNet at 96 pixels for 30 epochs: full width, 1/54 of the paper's compute.

    convnext-study study imagenet_96 --data folder:PATH --seeds 3 --precision bf16 --dry-run
    convnext-study study imagenet_96 --data folder:PATH --seeds 3 --precision bf16

Runs: 17 per seed, on maps of 24, 12, 6 and 3 pixels a side. The published recipes with 30 epochs
instead of 300 (90 in the first row), 2 of warm-up instead of 20, drops after 10 and 20, batches of
1,024 at rates scaled with them, and everything else as published. Cost by arithmetic: 27 h per
seed on one A100 at a tenth of its peak; the dry run has it for another ``--gpu`` and ``--mfu``.

Planned before any run, and not run by this package: Welch's t test with Holm's correction over the
16 gains; agreement with Table 10 over the 14 adopted rows and their 13 gains as in
docs/preregistration.md, where the claim is about the two correlations given log MACs, and "agrees
beyond counting" takes both p of at most 0.05. The result of a run is the accuracy after its last
epoch; no run is left out. Expect lower accuracies than the paper's: they are of other training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import select_records
from convnext_study.report.findings import Finding
from convnext_study.report.tables.agreement import agreement_table, trained_road
from convnext_study.runs.records import Record, Run

REGIME = "t"
FOLDER = "imagenet-96"


def runs(context: Context) -> list[Run]:
    return replace(context, recipe=context.recipe or "96").runs()


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    road = trained_road("96 pixels", context.road.regime, select_records(records, runs(context)))
    table = agreement_table([(road.label, road.agreement)])
    return [table] if table else []
