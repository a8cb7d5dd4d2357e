"""From the plain values of a record to a module: what `ModelRef.builder` may name.

A builder takes the arguments of the record and, by keyword, what the data and the recipe decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import UserError
from convnext_study.imports import file_digest, load_file

if TYPE_CHECKING:
    from torch import nn

ROADMAP_BUILDER = "convnext_study.models.builders:roadmap_net"
TIMM_BUILDER = "convnext_study.models.builders:timm_net"
FILE_BUILDER = "convnext_study.models.builders:file_net"


def roadmap_net(
    args: dict[str, Any], *, num_classes: int, drop_path: float, init: str
) -> nn.Module:
    """The network of a spec: ``args`` are `NetSpec`'s fields."""
    from convnext_study.models.roadmap_net import RoadmapNet
    from convnext_study.roadmap.spec import NetSpec

    net = RoadmapNet(NetSpec.from_dict(args), num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net


def timm_net(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """Any timm model: ``args`` hold its ``name`` and further keywords. It keeps its own init."""
    import timm

    keywords = {"drop_path_rate": drop_path, **args}
    net: nn.Module = timm.create_model(keywords.pop("name"), num_classes=num_classes, **keywords)
    return net


def file_net(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """A network from a function in a file of the user's.

    ``args`` hold the ``file``, the name of the ``function``, the `file_digest` as ``sha256``, and
    the function's own ``args``, which it gets as its first argument; the rest is as for any
    builder. Raises UserError where the file has changed: its content decides the run.
    """
    path = Path(args["file"])
    if file_digest(path) != args["sha256"]:
        raise UserError(f"{path}: has changed since this run was asked for; give the study again")
    function = getattr(load_file(path), args["function"], None)
    if not callable(function):
        raise UserError(f"{path}: has no function {args['function']!r}; define it there")
    own = dict(args["args"])
    net: nn.Module = function(own, num_classes=num_classes, drop_path=drop_path, init=init)
    return net
