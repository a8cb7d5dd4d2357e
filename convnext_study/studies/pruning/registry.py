"""The published networks of the pruning study as models in timm.

``timm.create_model("pruning_resnet56_a")`` builds one, and keywords may set fields of its spec:
``create_model("pruning_vgg16", widths=(8, "M", 16))``.
"""

from __future__ import annotations

from typing import Any

from convnext_study.models.registry import ModelEntry
from convnext_study.studies.pruning.published import PublishedNetwork, networks
from convnext_study.studies.pruning.spec import (
    BottleneckSpec,
    ImageNetBasicSpec,
    PreActSpec,
    VggSpec,
)

PAPER = "arXiv:1810.05270"
_FAMILIES = "convnext_study.studies.pruning.families"
_IMAGENET = 224  # pixels


def _stages(spec: Any) -> dict[str, Any]:
    if isinstance(spec, VggSpec):  # maps of different size, the first layer's left out
        stages = sum(len(group) > 0 for group in spec.groups())
    else:
        stages = len(spec.stages if isinstance(spec, PreActSpec) else spec.inner)
    return {"out_indices": tuple(range(stages)), "flatten_sequential": True}


def _entry(one: PublishedNetwork) -> ModelEntry:
    cfg = {
        "num_classes": one.classes,
        "input_size": (3, one.input, one.input),
        "pool_size": None,
        "crop_pct": 0.875 if one.input == _IMAGENET else 1.0,
        "interpolation": "bilinear",
        "paper_ids": PAPER,
    }
    description = f"{one.label}, of the pruning study."
    if isinstance(one.spec, ImageNetBasicSpec | BottleneckSpec):  # timm's ResNet, narrowed
        return ModelEntry(
            network=f"{_FAMILIES}:timm_resnet",
            spec=one.spec,
            description=description,
            cfg={**cfg, "first_conv": "conv1", "classifier": "fc"},
        )
    return ModelEntry(
        network=f"{_FAMILIES}:PruningNet",
        spec=one.spec,
        description=description,
        cfg=cfg,
        features=_stages,
    )


MODELS = {one.model: _entry(one) for one in networks().values()}
