"""Every row of every road map as a model in timm, with what timm's users expect of one.

After ``import convnext_study, timm`` in either order, ``timm.create_model("roadmap_t_gelu")``
builds one. Keywords may set fields of the network: ``create_model(..., kernel=9)``.
Nothing here imports timm until timm itself is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.roadmap import ROADMAPS, Roadmap, Variant
from convnext_study.roadmap.spec import STAGES, NetSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from convnext_study.models.roadmap_net import RoadmapNet

__all__: list[str] = ["VARIANTS", "register"]  # timm adds every model to it

# The row that a model is. The first row of a road map is the second's network, trained otherwise.
VARIANTS: dict[str, Variant] = {
    variant.model: variant for road in ROADMAPS.values() for variant in road.variants()
}

# Of DistributedDataParallel and torch.compile, in either order.
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")

default_cfgs: dict[str, Any] = {}  # timm reads it when a model is registered


def register() -> None:
    """Make every model known to timm. Called once, by the package, when timm is there."""
    # From where it is defined, so that this works while timm.models itself is being imported.
    from timm.models._registry import generate_default_cfgs, register_model

    cfgs = {
        name: _default_cfg(ROADMAPS[variant.regime], variant) for name, variant in VARIANTS.items()
    }
    default_cfgs.update(generate_default_cfgs(cfgs))
    for name in VARIANTS:
        register_model(globals()[name])


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The weights in a checkpoint of this package, without wrappers' prefixes on their names."""
    weights: dict[str, Any] = state_dict.get("model", state_dict)
    return {_WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}


def _default_cfg(road: Roadmap, variant: Variant) -> dict[str, Any]:
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    size = road.image_size
    stride = variant.spec.stem_stride * 2 ** (STAGES - 1)
    return {
        "num_classes": road.num_classes,
        "input_size": (3, size, size),
        "pool_size": (size // stride, size // stride),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "license": "apache-2.0",
        "description": f"{variant.label}: {road.title}",
        "paper_ids": "arXiv:2201.03545",
    }


def _network(
    variant: Variant, *, device: Any = None, dtype: torch.dtype | None = None, **kwargs: Any
) -> RoadmapNet:
    """The row's network. Raises TypeError for a keyword that nothing knows."""
    import torch

    from convnext_study.models.roadmap_net import RoadmapNet

    fields = [field.name for field in dataclasses.fields(NetSpec)]
    arguments = list(inspect.signature(RoadmapNet).parameters)[1:]
    for name in kwargs:
        if name not in (*fields, *arguments):
            raise TypeError(
                f"{variant.model}: no argument {name}{did_you_mean(name, [*arguments, *fields])}"
            )
    spec = variant.spec.replace(**{name: kwargs.pop(name) for name in fields if name in kwargs})
    with torch.device(device) if device is not None else nullcontext():
        return RoadmapNet(spec, **kwargs).to(dtype=dtype)


def _entry_point(variant: Variant) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from timm.models._builder import build_model_with_cfg

        model: nn.Module = build_model_with_cfg(
            partial(_network, variant),
            variant.model,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": tuple(range(STAGES)), "flatten_sequential": True},
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = variant.model
    create.__doc__ = f"{variant.label}, of {ROADMAPS[variant.regime].title}."
    return create


globals().update({name: _entry_point(variant) for name, variant in VARIANTS.items()})
