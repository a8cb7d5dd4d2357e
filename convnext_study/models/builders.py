"""Builders of networks from the plain values of a record, by the names in `ModelRef.builder`.

A builder takes the record's arguments and, by keyword, the values set by data and recipe.
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
LEAN_TIMM = "convnext_study.models.lean_timm"  # preloaded where timm's networks are trained

Builder = Callable[..., "nn.Module"]


def get_builder(name: str) -> Builder:
    """A builder by its short name, here or in a `Study`, or by its address ``module:function``.

    Raises TaskError if there is none. The builder itself raises TaskError too, one line with its
    name, if it fails or does not return a network.
    """
    return checked(name, _find(name))


def _find(name: str) -> Builder:
    core = {ROADMAP_BUILDER: roadmap_net, TIMM_BUILDER: timm_net, FILE_BUILDER: file_net}
    if name in core:
        return core[name]
    by_study = study_addresses("builders")
    if ":" not in name and name not in by_study:
        raise TaskError(f"builder {name!r}{did_you_mean(name, [*core, *by_study])}")
    builder: Builder = resolve(by_study.get(name, name))
    return builder


def checked(name: str, builder: Builder) -> Builder:
    """The builder, with TaskError, one line that names it, if it fails or returns no network."""

    @functools.wraps(builder)
    def build(args: dict[str, Any], **options: Any) -> nn.Module:
        from torch import nn
        from torch.nn.parameter import is_lazy

        label = describe_builder(name, args)
        try:
            net = builder(args, **options)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise TaskError(f"{label}: {fault(error, Path(args.get('file', '')))}") from error
        if not isinstance(net, nn.Module):
            what = "nothing" if net is None else f"an object of type {type(net).__name__}"
            raise TaskError(f"{label}: returns {what}; return a torch.nn.Module")
        if any(is_lazy(weight) for weight in net.parameters()):
            raise TaskError(f"{label}: has lazy layers; run it on an image before returning it")
        return net

    return build


def describe_builder(name: str, args: dict[str, Any]) -> str:
    """A builder in words, for error messages."""
    if name == FILE_BUILDER:
        return f"builder {args.get('file')}:{args.get('function')}"
    return f"builder {name!r}" + (f" of {args.get('name')!r}" if name == TIMM_BUILDER else "")


def check_timm_name(name: object) -> None:
    """Raises TaskError, with the closest name, if timm has no network of this name."""
    from convnext_study.models.lean_timm import timm

    if isinstance(name, str) and (":" in name or timm.is_model(name)):  # hf-hub:..., local-dir:...
        return
    raise TaskError(f"timm has no network {name!r}{nearest_of_timm(str(name))}")


def nearest_of_timm(name: str) -> str:
    """The end of an error message: only the closest of more than a thousand names."""
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
    """Any timm model: ``args`` are its ``name`` and further keywords. It keeps its own init."""
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
    """A network from a function in a user's file.

    ``args`` are the ``file``, the name of the ``function``, the `file_digest` as ``sha256``, and
    the function's own ``args``, which are its first argument; the rest is as for any builder.
    Raises UserError if the file has changed, since its content identifies the run.
    """
    path = Path(args["file"])
    if file_digest(path) != args["sha256"]:
        raise UserError(f"{path}: changed after the run was created; rerun the study")
    function = load_function(path, args["function"])
    file_args = dict(args["args"])
    net: nn.Module = function(file_args, num_classes=num_classes, drop_path=drop_path, init=init)
    return net
