"""The last network with depthwise kernels from 3x3 to 31x31.

    convnext-study study kernel_size --seeds 3

The road tries 5, 9 and 11 before the micro design (rows ``kernel_5`` to ``kernel_11``); here every
size is tried at the end of the road, whose last row has 7.

Runs: 15 per seed. Cost on the nano road: about 25 s per run on one idle core and more for the
largest kernels; about 5 minutes per seed on two cores.

Expect: saturation. The paper's networks gain nothing above 7x7 (section 2.5). On nano's maps of at
most 16x16, a kernel above 31 would only add taps, and MACs, that never reach the map.
"""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.roadmap.extensions import KERNELS
from convnext_study.runs.records import Run


def runs(context: Context) -> list[Run]:
    wide = context.with_branches(*KERNELS)
    return wide.runs([context.last_step, *(step.name for step in KERNELS)])
