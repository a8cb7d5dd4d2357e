"""The multi-path lightweight CNN (Zhao, Bai, An, 2023) as a road of its own: our reconstruction.

    convnext-study study multipath --seeds 3
    convnext-study study multipath --networks paths,depths --seeds 5

Plain basic blocks, widened in channels, widened in paths of equal depths, different depths, and
attention on either; then the large networks. docs/multipath.md says what is the paper's in it.

Runs: 10 a seed. On digits and folders networks a quarter as wide are trained for 8 epochs: ours
and reduced. With ``--data cifar10:PATH``, or anywhere with ``--recipe published``, they are the
full ones for 200 epochs, and ResNet-18 and SE-ResNet-18 as well, 12 a seed; that takes a GPU.
Cost on digits: 9 to 60 s a run on a core that others use too, the large ones 150 and 210; one seed
took 6 minutes on two such cores, and 3 take three times that.

Expect: on digits nothing that is significant: every row is near 98 %. Widening by paths is
linear in the 3x3 convolutions alone.
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
