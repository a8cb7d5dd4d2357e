"""The two ends of the road are networks that others have released: their weights, by our names.

The names stand in `models/pretrained/key_maps.py`; the outputs are those of torchvision's and
timm's networks. Pointwise layers may be linear or convolutions of 1x1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from einops import rearrange

from convnext_study.models.pretrained.key_maps import (
    KEY_MAPS,
    KeyMap,
    PretrainedError,
    check_end,
    check_like,
    depth,
    detect,
    few,
    find,
    leaf,
    modules,
)
from convnext_study.models.pretrained.state_files import State, unwrap
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap.spec import STAGES, NetSpec

__all__ = ["KEY_MAPS", "PretrainedError", "classes_of", "detect", "load", "spec_of", "to_roadmap"]

# Axes of our weights where others have other ones.
_OURS = {"o i": "o i 1 1", "1 1 1 c": "c", "c 1 1": "c"}
_OPTIONAL = ".num_batches_tracked"  # BatchNorm counts them since PyTorch 0.4.1


def spec_of(state: Mapping[str, Any]) -> NetSpec:
    """The spec of the network whose weights these are.

    Depths, width, layer scale and GRN are read from names and shapes, so that any ResNet of
    bottlenecks and any ConvNeXt, V2 too, can be loaded.

    Raises:
        PretrainedError: no known layout, a variant that no end of the road is, or no stem to read
            the width from.
    """
    state = unwrap(state)
    known = _known(state)
    stem = f"{known.names['stem.conv']}.weight"
    width = _size(state, stem, 0)
    if width is None:
        raise PretrainedError(f"the weights are not those of {known.title}: 1 missing: {stem}")
    depths = tuple(depth(known, stage, state) for stage in range(STAGES))
    spec = known.end.replace(depths=depths, width=width)
    return spec.replace(
        grn=find(known, "{block}.branch.grn.gamma", state) is not None,
        layer_scale=spec.layer_scale if find(known, "{block}.branch.scale.gamma", state) else None,
    )


def classes_of(state: Mapping[str, Any]) -> int:
    """Classes of the network whose weights these are; 1 where they have no classifier.

    Raises PretrainedError for no known layout.
    """
    state = unwrap(state)
    return _classes(state, _known(state)) or 1


def to_roadmap(state: Mapping[str, Any], spec: NetSpec) -> State:
    """Weights in one of `KEY_MAPS` as weights of ``RoadmapNet(spec)``; the tensors are not copied.

    Args:
        state: their state dict. BatchNorm's ``num_batches_tracked`` may be absent and is then 0.
        spec: an end of the road; `spec_of` reads it from ``state``.

    Raises:
        PretrainedError: the weights are not those of such a network.
    """
    state = unwrap(state)
    known = _known(state)
    chans = _size(state, f"{known.names['stem.conv']}.weight", 1) or 3
    # A classifier that is not there is reported as missing, whatever its size.
    return _rename(state, known, _mappings(known, spec, _classes(state, known) or 1, chans))


def load(net: RoadmapNet, state: Mapping[str, Any]) -> None:
    """Copy weights in one of `KEY_MAPS` into a network, which must be an end of the road.

    A network without a classifier takes all but theirs.

    Raises:
        PretrainedError: the weights are not those of such a network; it is left as it was.
    """
    state = unwrap(state)
    known = _known(state)
    found = _classes(state, known)
    if net.num_classes and found and net.num_classes != found:
        raise PretrainedError(
            f"the weights have a classifier of {found} classes, the network one of "
            f"{net.num_classes}; build it with num_classes={found}, or 0 for none"
        )
    if not net.num_classes:
        head = f"{known.names['head.fc']}."
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    own = _mappings(known, net.spec, net.num_classes, net.in_chans)
    net.load_state_dict(_rename(state, known, own))


def _known(state: State) -> KeyMap:
    """The layout of weights, with pointwise layers as these have them."""
    known = KEY_MAPS[detect(state)]
    check_like(known, state)
    first = find(known, "{block}.branch.pw1.weight", state)
    if first is None or state[first].ndim != len("oihw"):
        return known
    kept = {end: theirs for end, theirs in known.leaves.items() if theirs[1] != "o i"}
    return dataclasses.replace(known, leaves=kept)


class WeightMapping(NamedTuple):
    """One tensor: its name here and there, its shape there, and its axes there and here."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    axes: str


def _mappings(
    key_map: KeyMap, spec: NetSpec, num_classes: int, in_chans: int
) -> list[WeightMapping]:
    """From theirs to ours, for every tensor of the network."""
    check_end(key_map, spec)
    with torch.device("meta"):
        own = RoadmapNet(spec, num_classes=num_classes, in_chans=in_chans).state_dict()
    names = modules(key_map, spec.depths)
    found: list[WeightMapping] = []
    for key, tensor in own.items():
        name, theirs = leaf(key_map, key)
        ours = _OURS.get(theirs, theirs)
        shape = tuple(rearrange(tensor, f"{ours} -> {theirs}").shape)
        target = f"{names[key.rpartition('.')[0]]}.{name}"
        found.append(WeightMapping(key, target, shape, f"{theirs} -> {ours}"))
    return found


def _rename(state: State, known: KeyMap, mappings: list[WeightMapping]) -> State:
    shapes = {one.theirs: one.shape for one in mappings}
    problems = {
        "missing": [k for k in shapes if k not in state and not k.endswith(_OPTIONAL)],
        "unexpected": [k for k in state if k not in shapes],
        "of another shape": [
            f"{k} {list(state[k].shape)} instead of {list(shape)}"
            for k, shape in shapes.items()
            if k in state and tuple(state[k].shape) != shape
        ],
    }
    found = [f"{len(keys)} {what}: {few(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise PretrainedError(f"the weights are not those of {known.title}: {'; '.join(found)}")
    zero = torch.zeros((), dtype=torch.long)
    return {one.ours: rearrange(state.get(one.theirs, zero), one.axes) for one in mappings}


def _classes(state: State, known: KeyMap) -> int | None:
    """As many as the classifier has, if there is one."""
    head = known.names["head.fc"]
    return _size(state, f"{head}.weight", 0) or _size(state, f"{head}.bias", 0)


def _size(state: State, key: str, axis: int) -> int | None:
    shape = state[key].shape if key in state else ()
    return shape[axis] if len(shape) > axis else None
