"""Networks for the tests of the multi-path room."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from convnext_study.studies.multipath.network import MultipathNet
from convnext_study.studies.multipath.registry import MODELS
from convnext_study.studies.multipath.spec import MultipathSpec
from support.nets import build, settled

SPECS = {name: entry.spec for name, entry in MODELS.items() if entry.spec is not None}
BASELINES = [name for name in MODELS if name not in SPECS]

TINY = MultipathSpec(width=4, modules=1)
SHAPES = (
    TINY,
    TINY.replace(depths=(2, 2, 3, 3), attention="path"),
    TINY.replace(depths=(0, 0, 1, 3), attention="se", width=8),
    TINY.replace(depths=(2,)),
)
# A narrow network of each kind of block, in both forms.
NARROW: dict[str, dict[str, Any]] = {
    "multipath_small_pathatt": {"width": 4, "modules": 1, "depths": (1, 2, 2)},
    "multipath_large_paths_se": {
        "width": 4,
        "modules": 1,
        "depths": (0, 0, 1, 2),
        "implementation": "plain",
    },
    "multipath_basic": {"width": 8, "modules": 1},
}
every_model = pytest.mark.parametrize("name", MODELS)
every_layer = pytest.mark.parametrize("name", NARROW)
every_kind = pytest.mark.parametrize("name", [*NARROW, "multipath_se_resnet18"])


def meta(spec: MultipathSpec, **kwargs: Any) -> MultipathNet:
    with torch.device("meta"):
        return MultipathNet(spec, **kwargs)


@functools.cache
def outline(name: str) -> Any:
    """A network without values, which no test may change."""
    return build(name, device="meta", drop_path_rate=0.1)


def narrow(name: str, **kwargs: Any) -> Any:
    return settled(name, **NARROW.get(name, {}), **kwargs)
