"""The road map from ResNet-200 to ConvNeXt-B (Table 11).

    convnext-study study base_regime --data folder:PATH --seeds 1

Runs: 17 per seed, 300 epochs each with the published recipe (the first row 90). Cost: 5 to 17 GMACs
per image, three to four times the t road's: on ImageNet this needs a cluster. For a first look at
small images use ``--regime nano``, or ``--recipe small --epochs 10 --image-size 64``.

Expect, with ImageNet-1K and the published recipes: 83.6 % in the last row, whose stochastic depth
of 0.5 is that of its released command; none is published for the rows between, which use
ConvNeXt-T's. Table 11's 78.2 % in the first row most likely comes from another training, tested at
320 pixels (`roadmap/paper.py`): expect less at 224.
"""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.runs.records import Run

REGIME = "b"


def runs(context: Context) -> list[Run]:
    return context.runs()
