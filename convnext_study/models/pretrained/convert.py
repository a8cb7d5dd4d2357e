"""Released weights of the two ends of the road, converted to our names.

The names are in `models/pretrained/key_maps.py`; the outputs equal those of torchvision's and
timm's networks. Pointwise layers may be linear layers or convolutions of 1x1.
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
    check_variant,
    detect,
    few,
    rename,
)
from convnext_study.models.pretrained.state_files import State, unwrap
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap.spec import STAGES, NetSpec

__all__ = ["KEY_MAPS", "PretrainedError", "classes_of", "detect", "load", "spec_of", "to_roadmap"]

_OPTIONAL = ".num_batches_tracked"  # part of BatchNorm since PyTorch 0.4.1


def spec_of(state: Mapping[str, Any]) -> NetSpec:
    """The spec of the network that these weights belong to.

    Depths, width, layer scale and GRN are read from names and shapes, so that any bottleneck
    ResNet and any ConvNeXt, V2 included, can be loaded.

    Raises:
        PretrainedError: an unknown layout, a variant that is no end of the road, or no stem to
            read the width from.
    """
    key_map, own = _by_our_names(state)
    width = _size(own, "stem.conv.weight", 0)
    if width is None:
        raise PretrainedError(f"these are not weights of {key_map.title}: they have no stem")
    blocks = [re.match(r"stages\.(\d)\.blocks\.(\d+)\.", name) for name in own]
    numbers = {(int(match[1]), int(match[2])) for match in blocks if match}
    depths = (max((b + 1 for s, b in numbers if s == stage), default=1) for stage in range(STAGES))
    spec = key_map.end.replace(depths=tuple(depths), width=width)
    scaled, grn = (any(f".branch.{layer}." in name for name in own) for layer in ("scale", "grn"))
    return spec.replace(grn=grn, layer_scale=spec.layer_scale if scaled else None)


def classes_of(state: Mapping[str, Any]) -> int:
    """Number of classes of the network with these weights; 1 if they have no classifier.

    Raises PretrainedError for an unknown layout.
    """
    return _classes(_by_our_names(state)[1]) or 1


def to_roadmap(state: Mapping[str, Any], spec: NetSpec) -> State:
    """Weights in a layout of `KEY_MAPS` as weights of ``RoadmapNet(spec)``, without copying.

    Args:
        state: their state dict. BatchNorm's ``num_batches_tracked`` may be missing and is then 0.
        spec: an end of the road; `spec_of` reads it from ``state``.

    Raises:
        PretrainedError: the weights are not those of such a network.
    """
    key_map, own = _by_our_names(state)
    # A missing classifier is reported as such, whatever its size.
    return _fitted(own, key_map, spec, _classes(own) or 1, _size(own, "stem.conv.weight", 1) or 3)


def load(net: RoadmapNet, state: Mapping[str, Any]) -> None:
    """Copy weights in a layout of `KEY_MAPS` into a network, which must be an end of the road.

    If the network has no classifier, theirs is left out.

    Raises:
        PretrainedError: the weights are not those of such a network, which is then unchanged.
    """
    key_map, own = _by_our_names(state)
    num_classes = _classes(own)
    if net.num_classes and num_classes and net.num_classes != num_classes:
        raise PretrainedError(
            f"the weights have a classifier with {num_classes} classes, the network has "
            f"{net.num_classes}; build it with num_classes={num_classes}, or 0 for none"
        )
    if not net.num_classes:
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.fc.")}
    net.load_state_dict(_fitted(own, key_map, net.spec, net.num_classes, net.in_chans))


def _by_our_names(state: Mapping[str, Any]) -> tuple[KeyMap, State]:
    """The layout of weights, and the weights by our names."""
    state = unwrap(state)
    key_map = KEY_MAPS[detect(state)]
    check_variant(key_map, state)
    names = rename(key_map, state)
    return key_map, {names[key]: tensor for key, tensor in state.items()}


def _fitted(own: State, key_map: KeyMap, spec: NetSpec, num_classes: int, in_chans: int) -> State:
    """All weights of the network, in its shapes, which may differ by axes of one."""
    check_end(key_map, spec)
    with torch.device("meta"):
        net = RoadmapNet(spec, num_classes=num_classes, in_chans=in_chans).state_dict()
    problems = {
        "missing": [name for name in net if name not in own and not name.endswith(_OPTIONAL)],
        "unexpected": [name for name in own if name not in net],
        "with another shape": [
            f"{name} {list(own[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in net.items()
            if name in own and own[name].squeeze().shape != tensor.squeeze().shape
        ],
    }
    reasons = [f"{len(names)} {what}: {few(names)}" for what, names in problems.items() if names]
    if reasons:
        raise PretrainedError(
            f"these are not weights of {key_map.title}, in our names: {'; '.join(reasons)}"
        )
    zero = torch.zeros((), dtype=torch.long)
    return {name: own.get(name, zero).reshape(tensor.shape) for name, tensor in net.items()}


def _classes(own: State) -> int | None:
    """Number of classes of the classifier, if there is one."""
    return _size(own, "head.fc.weight", 0) or _size(own, "head.fc.bias", 0)


def _size(own: State, name: str, axis: int) -> int | None:
    shape = own[name].shape if name in own else ()
    return shape[axis] if len(shape) > axis else None
