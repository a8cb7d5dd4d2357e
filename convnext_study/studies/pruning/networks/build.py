"""From a spec to its network."""

from __future__ import annotations

from typing import Any

from torch import nn

from convnext_study.models.initial import init_layers
from convnext_study.studies.pruning.networks.network import PruningNet
from convnext_study.studies.pruning.networks.timm_resnets import timm_resnet
from convnext_study.studies.pruning.specs import BottleneckSpec, ImageNetBasicSpec, Spec, from_dict


def make_network(spec: Spec, **kwargs: Any) -> nn.Module:
    """The network of a spec; further arguments are those of `PruningNet` or timm's ``ResNet``."""
    if isinstance(spec, ImageNetBasicSpec | BottleneckSpec):
        return timm_resnet(spec, **kwargs)
    return PruningNet(spec, **kwargs)


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """The network of a record: ``args`` are a spec's fields and its ``family``.

    Raises SpecError for a spec that no network can have.
    """
    net: Any = make_network(from_dict(args), num_classes=num_classes, drop_path_rate=drop_path)
    if isinstance(net, PruningNet):
        net.init_weights(init)
    elif init == "trunc_normal":  # its own start is torchvision's
        init_layers(net, init, lambda conv: None)
    return net  # type: ignore[no-any-return]
