"""The road map from ResNet-200 to ConvNeXt-B (Table 11).

    convnext-study study base_regime --data folder:PATH --seeds 1

Runs: 17 per seed, 300 epochs each with the published recipe (the first row 90). Cost: 5 to 17 GMACs
an image, three to four times the t road's: at ImageNet's size this is work for a cluster. A first
look at small images: ``--regime nano``, or ``--recipe small --epochs 10 --image-size 64``.

Expect, with ImageNet-1K and the published recipes: 83.6 % in the last row, whose stochastic depth
of 0.5 is its released command's; none is published for the rows between: they have ConvNeXt-T's.
Table 11's 78.2 % in the first row is most likely of another training, tested at 320 pixels
(`roadmap/paper.py`): expect less at 224.
"""

from __future__ import annotations

from convnext_study.experiments.context import Context
from convnext_study.runs.records import Run

REGIME = "b"


def runs(context: Context) -> list[Run]:
    return context.runs()
