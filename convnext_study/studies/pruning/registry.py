"""The published networks of the pruning study as models in timm.

``timm.create_model("pruning_resnet56_a")`` builds one, and keywords may set fields of its spec:
``create_model("pruning_vgg16", widths=(8, "M", 16))``. Nothing here imports timm until timm itself
is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.models.registry import checkpoint_filter_fn
from convnext_study.studies.pruning.published import PublishedNetwork, networks
from convnext_study.studies.pruning.specs import (
    BottleneckSpec,
    ImageNetBasicSpec,
    Spec,
    count_stages,
    field_names,
    replace,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__: list[str] = ["MODELS", "register"]  # timm adds every model to it

PAPER = "arXiv:1810.05270"
MODELS: dict[str, PublishedNetwork] = {one.model: one for one in networks().values()}

default_cfgs: dict[str, Any] = {}  # timm reads it when a model is registered


def register() -> None:
    """Make every model known to timm. Called once, when timm is there."""
    # From where it is defined, so that this works while timm.models itself is being imported.
    from timm.models._registry import generate_default_cfgs, register_model

    default_cfgs.update(generate_default_cfgs({name: _cfg(one) for name, one in MODELS.items()}))
    for name in MODELS:
        register_model(globals()[name])


def is_timms(network: PublishedNetwork) -> bool:
    """Whether it is timm's ResNet with narrowed layers."""
    return isinstance(network.spec, ImageNetBasicSpec | BottleneckSpec)


def _cfg(network: PublishedNetwork) -> dict[str, Any]:
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    names = ("conv1", "fc") if is_timms(network) else ("stem.conv", "head.fc")
    return {
        "num_classes": network.classes,
        "input_size": (3, network.input, network.input),
        "pool_size": None,
        "crop_pct": 0.875 if network.input == 224 else 1.0,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": names[0],
        "classifier": names[1],
        "license": "apache-2.0",
        "description": network.label,
        "paper_ids": PAPER,
    }


def _network(
    name: str, spec: Spec, *, device: Any = None, dtype: torch.dtype | None = None, **kwargs: Any
) -> nn.Module:
    """The spec's network. Raises TypeError for a keyword that nothing knows."""
    import torch

    from convnext_study.studies.pruning.networks.build import make_network
    from convnext_study.studies.pruning.networks.network import PruningNet

    arguments = list(inspect.signature(PruningNet).parameters)[1:]
    for key in kwargs:
        if not is_timms(MODELS[name]) and key not in arguments:
            known = [*arguments, *field_names(spec.family)]
            raise TypeError(f"{name}: no argument {key}{did_you_mean(key, known)}")
    with torch.device(device) if device is not None else nullcontext():
        return make_network(spec, **kwargs).to(dtype=dtype)


def _entry_point(name: str, network: PublishedNetwork) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from timm.models._builder import build_model_with_cfg

        fields = field_names(network.spec.family)
        spec = replace(network.spec, **{key: kwargs.pop(key) for key in fields if key in kwargs})
        stages = {"out_indices": tuple(range(count_stages(spec))), "flatten_sequential": True}
        model: nn.Module = build_model_with_cfg(
            partial(_network, name, spec),
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={} if is_timms(network) else stages,
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{network.label}, of the pruning study."
    return create


globals().update({name: _entry_point(name, network) for name, network in MODELS.items()})
