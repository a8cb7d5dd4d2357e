"""From the plain values of a record to a module: what `ModelRef.builder` may name.

A builder takes the arguments of the record and, by keyword, what the data and the recipe decide.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import UserError, did_you_mean
from convnext_study.imports import (
    TaskError,
    fault,
    file_digest,
    load_function,
    resolve,
    study_addresses,
)

if TYPE_CHECKING:
    from torch import nn

ROADMAP_BUILDER, TIMM_BUILDER, FILE_BUILDER = "roadmap", "timm", "file"
LEAN_TIMM = "convnext_study.models.lean_timm"  # what a process that trains timm's networks imports

Builder = Callable[..., "nn.Module"]


def get_builder(name: str) -> Builder:
    """The builder of a short name, or of a user's ``module:function``.

    A study's are those of its `Study`. Raises TaskError where there is none. What it returns raises
    TaskError too, one line with the builder's name, where the builder raises or gives no network.
    """
    return checked(name, _find(name))


def _find(name: str) -> Builder:
    core = {ROADMAP_BUILDER: roadmap_net, TIMM_BUILDER: timm_net, FILE_BUILDER: file_net}
    if name in core:
        return core[name]
    own = study_addresses("builders")
    if ":" not in name and name not in own:
        raise TaskError(f"builder {name!r}{did_you_mean(name, [*core, *own])}")
    builder: Builder = resolve(own.get(name, name))
    return builder


def checked(name: str, builder: Builder) -> Builder:
    """The builder; TaskError, one line that names it, where it raises or returns no network."""

    @functools.wraps(builder)
    def build(args: dict[str, Any], **given: Any) -> nn.Module:
        from torch import nn
        from torch.nn.parameter import is_lazy

        words = describe_builder(name, args)
        try:
            net = builder(args, **given)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise TaskError(f"{words}: {fault(error, Path(args.get('file', '')))}") from error
        if not isinstance(net, nn.Module):
            what = "nothing" if net is None else f"an object of type {type(net).__name__}"
            raise TaskError(f"{words}: returns {what}; return a torch.nn.Module")
        if any(is_lazy(weight) for weight in net.parameters()):
            raise TaskError(f"{words}: has lazy layers; run it on an image before it is returned")
        return net

    return build


def describe_builder(name: str, args: dict[str, Any]) -> str:
    """What builds a network, in words, for errors."""
    if name == FILE_BUILDER:
        return f"builder {args.get('file')}:{args.get('function')}"
    return f"builder {name!r}" + (f" of {args.get('name')!r}" if name == TIMM_BUILDER else "")


def check_timm_name(name: object) -> None:
    """Raises TaskError for a name that no network of timm has, with the nearest."""
    from convnext_study.models.lean_timm import timm

    if isinstance(name, str) and (":" in name or timm.is_model(name)):  # hf-hub:..., local-dir:...
        return
    raise TaskError(f"timm has no network {name!r}{nearest_of_timm(str(name))}")


def nearest_of_timm(name: str) -> str:
    """The end of an error message: of more than a thousand names only the closest."""
    from convnext_study.models.lean_timm import timm

    close = difflib.get_close_matches(name, timm.list_models(), n=1)
    return f"; did you mean {close[0]}?" if close else "; timm.list_models() has their names"


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
    from convnext_study.models.lean_timm import timm

    keywords = {"num_classes": num_classes, "drop_path_rate": drop_path, **args}
    check_timm_name(name := keywords.pop("name", None))
    try:
        net: nn.Module = timm.create_model(name, **keywords)
    except TypeError as error:
        if drop_path or "drop_path_rate" not in str(error):
            raise
        del keywords["drop_path_rate"]  # a network without stochastic depth
        net = timm.create_model(name, **keywords)
    return net


def file_net(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """A network from a function in a file of the user's.

    ``args`` hold the ``file``, the name of the ``function``, the `file_digest` as ``sha256``, and
    the function's own ``args``, which it gets as its first argument; the rest is as for any
    builder. Raises UserError where the file has changed: its content decides the run.
    """
    path = Path(args["file"])
    if file_digest(path) != args["sha256"]:
        raise UserError(f"{path}: changed after the run was created; rerun the study")
    function = load_function(path, args["function"])
    own = dict(args["args"])
    net: nn.Module = function(own, num_classes=num_classes, drop_path=drop_path, init=init)
    return net
