"""From the plain values of a record to a module: what `ModelRef.builder` may name.

A builder takes the arguments of the record and, by keyword, what the data and the recipe decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROADMAP_BUILDER = "convnext_study.build:roadmap_net"
TIMM_BUILDER = "convnext_study.build:timm_net"


def roadmap_net(
    args: dict[str, Any], *, num_classes: int, drop_path: float, init: str
) -> nn.Module:
    """The network of a spec: ``args`` are `NetSpec`'s fields."""
    from convnext_study.net import RoadmapNet
    from convnext_study.spec import NetSpec

    net = RoadmapNet(NetSpec.from_dict(args), num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net


def timm_net(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """Any timm model: ``args`` hold its ``name`` and further keywords. It keeps its own init."""
    import timm

    keywords = {"drop_path_rate": drop_path, **args}
    net: nn.Module = timm.create_model(keywords.pop("name"), num_classes=num_classes, **keywords)
    return net
