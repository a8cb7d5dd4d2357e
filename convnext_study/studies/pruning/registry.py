"""The published networks of the pruning study as models in timm.

``timm.create_model("pruning_resnet56_a")`` builds one, and keywords may set fields of its spec:
``create_model("pruning_vgg16", widths=(8, "M", 16))``.
"""

from __future__ import annotations

from typing import Any

from convnext_study.models.registry import ModelEntry
from convnext_study.studies.pruning.published import PublishedNetwork, networks
from convnext_study.studies.pruning.spec import (
    POOL,
    BottleneckSpec,
    ImageNetBasicSpec,
    PreActSpec,
    Spec,
    VggSpec,
)

PAPER = "arXiv:1810.05270"
_FAMILIES = "convnext_study.studies.pruning.families"
_IMAGENET = 224  # pixels


def _features(spec: Any) -> dict[str, Any]:
    return {"out_indices": tuple(range(spec.stage_count)), "flatten_sequential": True}


def _reduction(spec: Spec) -> int:
    """By how much the image's side has shrunk where the head reads it."""
    if isinstance(spec, VggSpec):
        return int(2 ** spec.widths[:-1].count(POOL))  # the head has the last one
    stem = 4 if isinstance(spec, ImageNetBasicSpec | BottleneckSpec | PreActSpec) else 1
    return int(stem * 2 ** (spec.stage_count - 1))


def _entry(one: PublishedNetwork) -> ModelEntry:
    is_timms = isinstance(one.spec, ImageNetBasicSpec | BottleneckSpec)  # its ResNet, narrowed
    side = one.input // _reduction(one.spec)
    cfg = {
        "num_classes": one.classes,
        "input_size": (3, one.input, one.input),
        "pool_size": (side, side),
        "crop_pct": 0.875 if one.input == _IMAGENET else 1.0,
        "interpolation": "bilinear",
        "paper_ids": PAPER,
    }
    return ModelEntry(
        network=f"{_FAMILIES}:{'timm_resnet' if is_timms else 'PruningNet'}",
        spec=one.spec,
        description=f"{one.label}, of the pruning study.",
        cfg={**cfg, "first_conv": "conv1", "classifier": "fc"} if is_timms else cfg,
        features={} if is_timms else _features,
    )


MODELS = {one.model: _entry(one) for one in networks().values()}
