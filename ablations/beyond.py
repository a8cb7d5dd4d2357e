"""The last network with each of the further steps: layer scale, GRN, the isotropic layout.

    convnext-study study beyond --seeds 3
    convnext-study study leave_one_out --extra-steps grn,layer_scale

The first command adds each step alone to the end of the road; the second appends them to the road,
as steps of any study. Larger kernels have their own study, kernel_size.py.

Runs: 4 per seed on the nano road, 6 on the others (isotropic S, B and L, as in Table 2). Cost on
the nano road: about 25 s per run on one idle core, so a minute per seed on two.

Expect: little that is significant. In ConvNeXt V2 GRN helps after masked pre-training; in the paper
isotropic networks are on a par with vision Transformers.
"""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.roadmap.extensions import KERNELS, extension_steps
from convnext_study.runs.records import Run


def runs(context: Context) -> list[Run]:
    steps = [step for step in extension_steps(context.road) if step not in KERNELS]
    wide = context.with_branches(*steps)
    return wide.runs([context.last_step, *(step.name for step in steps)])
