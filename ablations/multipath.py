"""The multi-path lightweight CNN (Zhao, Bai, An, 2023) as a road of its own: our reconstruction.

    convnext-study study multipath --seeds 3
    convnext-study study multipath --networks paths,depths --seeds 5

The rows: plain basic blocks, widened in channels, widened in paths of equal depths, of different
depths, attention on either, then the large networks. docs/multipath.md says which parts are the
paper's.

Runs: 10 per seed. On digits and folders, networks a quarter as wide are trained for 8 epochs, which
is ours. With ``--data cifar10:PATH``, or on any data with ``--recipe published``, the full networks
are trained for 200 epochs, with ResNet-18 and SE-ResNet-18, 12 per seed; that needs a GPU.
Cost on digits: 9 to 60 s per run on a busy core, 150 and 210 for the large ones; one seed took 6
minutes on two such cores, and 3 seeds take three times as long.

Expect: on digits nothing significant: every row is near 98 %. Widening in paths is linear only in
the 3x3 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import select_records
from convnext_study.report.findings import Finding
from convnext_study.results.grouping import comparable
from convnext_study.runs.records import Record, Run
from convnext_study.studies.multipath.findings import findings
from convnext_study.studies.multipath.rows import is_full, runs_of

DATA = "digits"
FOLDER = "multipath"  # in runs/, apart from the road map's rows
NETWORKS = "rows by name, such as paths,depths"


def runs(context: Context) -> list[Run]:
    return runs_of(context.data, context.seeds, context.recipe, context.changes, context.networks)


def report(records: Sequence[Record], context: Context) -> list[Finding]:
    own = comparable(select_records(records, runs(context)))
    return findings(own, context.data, is_full(context.data, context.recipe))
