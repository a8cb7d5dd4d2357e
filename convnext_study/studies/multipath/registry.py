"""The multi-path networks and their baselines as models in timm.

``timm.create_model("multipath_small_se")`` builds one. Keywords may set fields of the spec:
``create_model("multipath_small", attention="path", depths=(2, 2, 3, 3))``.
"""

from __future__ import annotations

from convnext_study.models.registry import ModelEntry
from convnext_study.studies.multipath.spec import (
    BASIC,
    LARGE,
    LARGE_PATHS,
    SMALL,
    SMALL_EQUAL,
    STAGES,
    MultipathSpec,
)

RECONSTRUCTION = "Our reconstruction; the paper's layer table is not available to us."
PAPER = (
    "Zhao, Bai, An: Research on Multi-Path Lightweight Convolutional Neural Network, "
    "Computer Engineering and Applications 2023, 59(6), 134-145"
)
_NETS = {
    "multipath_small": (SMALL, "Paths of depths 1 to 4"),
    "multipath_small_equal": (SMALL_EQUAL, "The control with paths of nearly equal depths"),
    "multipath_large": (LARGE, "Paths of depths 1 to 4, widened in channels"),
    "multipath_large_paths": (LARGE_PATHS, "Widened in paths, of depths 0 to 7"),
}
_ATTENTION = {
    "": ("none", ""),
    "_pathatt": ("path", ", attention among the paths"),
    "_se": ("se", ", squeeze and excitation"),
}
_BASELINES = {
    "multipath_resnet18": (False, "ResNet-18 with a 3x3 stem, for 32x32 images"),
    "multipath_se_resnet18": (True, "SE-ResNet-18 (r = 16) with a 3x3 stem, for 32x32 images"),
}
_CFG = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "crop_pct": 1.0,
    "paper_name": PAPER,
    "paper_ids": "doi:10.3778/j.issn.1002-8331.2110-0083",
    "notes": (RECONSTRUCTION,),
}


def _multipath(spec: MultipathSpec, title: str) -> ModelEntry:
    return ModelEntry(
        network="convnext_study.studies.multipath.network:MultipathNet",
        spec=spec,
        description=f"{title}. {RECONSTRUCTION}",
        cfg=_CFG,
        features={"out_indices": tuple(range(STAGES)), "flatten_sequential": True},
    )


def _baseline(se: bool, title: str) -> ModelEntry:
    return ModelEntry(
        network="convnext_study.studies.multipath.network:resnet18",
        args={"se": se},
        description=f"{title}. {RECONSTRUCTION}",
        cfg={**_CFG, "pool_size": (4, 4), "first_conv": "conv1", "classifier": "fc"},
    )


MODELS: dict[str, ModelEntry] = {
    name + suffix: _multipath(spec.replace(attention=kind), title + attention)
    for name, (spec, title) in _NETS.items()
    for suffix, (kind, attention) in _ATTENTION.items()
}
MODELS["multipath_basic"] = _multipath(
    BASIC, "The plain network of basic blocks, of the small one's size"
)
MODELS |= {name: _baseline(se, title) for name, (se, title) in _BASELINES.items()}
