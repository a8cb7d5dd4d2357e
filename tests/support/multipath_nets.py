"""Networks for the tests of the multi-path room."""

from __future__ import annotations

from typing import Any

import torch

from convnext_study.studies.multipath.network import MultipathNet
from convnext_study.studies.multipath.spec import MultipathSpec

TINY = MultipathSpec(width=4, modules=1)
SHAPES = (
    TINY,
    TINY.replace(depths=(2, 2, 3, 3), attention="path"),
    TINY.replace(depths=(0, 0, 1, 3), attention="se", width=8),
    TINY.replace(depths=(2,)),
)


def meta(spec: MultipathSpec, **kwargs: Any) -> MultipathNet:
    with torch.device("meta"):
        return MultipathNet(spec, **kwargs)
