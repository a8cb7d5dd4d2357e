"""The two ends of the road are networks that others have released: their weights, by our names.

The names stand in `models/pretrained/key_maps.py`; the outputs are those of torchvision's and
timm's networks. Pointwise layers may be linear or convolutions of 1x1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from convnext_study.models.pretrained.key_maps import (
    KEY_MAPS,
    KeyMap,
    PretrainedError,
    check_end,
    check_like,
    detect,
    few,
    rename,
)
from convnext_study.models.pretrained.state_files import State, unwrap
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap.spec import STAGES, NetSpec

__all__ = ["KEY_MAPS", "PretrainedError", "classes_of", "detect", "load", "spec_of", "to_roadmap"]

_OPTIONAL = ".num_batches_tracked"  # BatchNorm counts them since PyTorch 0.4.1


def spec_of(state: Mapping[str, Any]) -> NetSpec:
    """The spec of the network whose weights these are.

    Depths, width, layer scale and GRN are read from names and shapes, so that any ResNet of
    bottlenecks and any ConvNeXt, V2 too, can be loaded.

    Raises:
        PretrainedError: no known layout, a variant that no end of the road is, or no stem to read
            the width from.
    """
    known, own = _by_our_names(state)
    width = _size(own, "stem.conv.weight", 0)
    if width is None:
        raise PretrainedError(f"the weights are not those of {known.title}: they have no stem")
    blocks = [re.match(r"stages\.(\d)\.blocks\.(\d+)\.", name) for name in own]
    numbers = {(int(one[1]), int(one[2])) for one in blocks if one}
    depths = (max((b + 1 for s, b in numbers if s == stage), default=1) for stage in range(STAGES))
    spec = known.end.replace(depths=tuple(depths), width=width)
    scaled, grn = (any(f".branch.{one}." in name for name in own) for one in ("scale", "grn"))
    return spec.replace(grn=grn, layer_scale=spec.layer_scale if scaled else None)


def classes_of(state: Mapping[str, Any]) -> int:
    """Classes of the network whose weights these are; 1 where they have no classifier.

    Raises PretrainedError for no known layout.
    """
    return _classes(_by_our_names(state)[1]) or 1


def to_roadmap(state: Mapping[str, Any], spec: NetSpec) -> State:
    """Weights in one of `KEY_MAPS` as weights of ``RoadmapNet(spec)``; the tensors are not copied.

    Args:
        state: their state dict. BatchNorm's ``num_batches_tracked`` may be absent and is then 0.
        spec: an end of the road; `spec_of` reads it from ``state``.

    Raises:
        PretrainedError: the weights are not those of such a network.
    """
    known, own = _by_our_names(state)
    # A classifier that is not there is reported as missing, whatever its size.
    return _fitted(own, known, spec, _classes(own) or 1, _size(own, "stem.conv.weight", 1) or 3)


def load(net: RoadmapNet, state: Mapping[str, Any]) -> None:
    """Copy weights in one of `KEY_MAPS` into a network, which must be an end of the road.

    A network without a classifier takes all but theirs.

    Raises:
        PretrainedError: the weights are not those of such a network; it is left as it was.
    """
    known, own = _by_our_names(state)
    found = _classes(own)
    if net.num_classes and found and net.num_classes != found:
        raise PretrainedError(
            f"the weights have a classifier of {found} classes, the network one of "
            f"{net.num_classes}; build it with num_classes={found}, or 0 for none"
        )
    if not net.num_classes:
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.fc.")}
    net.load_state_dict(_fitted(own, known, net.spec, net.num_classes, net.in_chans))


def _by_our_names(state: Mapping[str, Any]) -> tuple[KeyMap, State]:
    """The layout of weights, and the weights."""
    state = unwrap(state)
    known = KEY_MAPS[detect(state)]
    check_like(known, state)
    names = rename(known, state)
    return known, {names[key]: tensor for key, tensor in state.items()}


def _fitted(own: State, known: KeyMap, spec: NetSpec, num_classes: int, in_chans: int) -> State:
    """All weights of the network, in its shapes: axes of one come and go."""
    check_end(known, spec)
    with torch.device("meta"):
        net = RoadmapNet(spec, num_classes=num_classes, in_chans=in_chans).state_dict()
    problems = {
        "missing": [name for name in net if name not in own and not name.endswith(_OPTIONAL)],
        "unexpected": [name for name in own if name not in net],
        "of another shape": [
            f"{name} {list(own[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in net.items()
            if name in own and own[name].squeeze().shape != tensor.squeeze().shape
        ],
    }
    found = [f"{len(names)} {what}: {few(names)}" for what, names in problems.items() if names]
    if found:
        raise PretrainedError(
            f"the weights are not those of {known.title}, by our names: {'; '.join(found)}"
        )
    zero = torch.zeros((), dtype=torch.long)
    return {name: own.get(name, zero).reshape(tensor.shape) for name, tensor in net.items()}


def _classes(own: State) -> int | None:
    """As many as the classifier has, if there is one."""
    return _size(own, "head.fc.weight", 0) or _size(own, "head.fc.bias", 0)


def _size(own: State, name: str, axis: int) -> int | None:
    shape = own[name].shape if name in own else ()
    return shape[axis] if len(shape) > axis else None
