"""The two ends of the road are networks that others have released: their weights, both ways.

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
    get_key_map,
    leaf,
    modules,
)
from convnext_study.models.pretrained.state_files import State, unwrap
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap.spec import STAGES, NetSpec

__all__ = [
    "KEY_MAPS",
    "PretrainedError",
    "classes_of",
    "detect",
    "from_roadmap",
    "load",
    "spec_of",
    "to_roadmap",
]

# Axes of our weights where others have other ones.
_OURS = {"o i": "o i 1 1", "1 1 1 c": "c", "c 1 1": "c"}
_OPTIONAL = ".num_batches_tracked"  # BatchNorm counts them since PyTorch 0.4.1


def spec_of(state: Mapping[str, Any], key_map: str | None = None) -> NetSpec:
    """The spec of the network whose weights these are.

    Depths, width, layer scale and GRN are read from names and shapes, so that any ResNet of
    bottlenecks and any ConvNeXt, V2 too, can be loaded.

    Raises:
        PretrainedError: no known layout, a variant that no end of the road is, or no stem to read
            the width from.
    """
    state = unwrap(state)
    known = _known(state, key_map)
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


def classes_of(state: Mapping[str, Any], key_map: str | None = None) -> int:
    """Classes of the network whose weights these are; 1 where they have no classifier.

    Raises PretrainedError for no known layout.
    """
    state = unwrap(state)
    return _classes(state, _known(state, key_map).names["head.fc"], None)


def to_roadmap(
    state: Mapping[str, Any],
    spec: NetSpec,
    key_map: str | None = None,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
) -> State:
    """Weights in one of `KEY_MAPS` as weights of ``RoadmapNet(spec)``; the tensors are not copied.

    Args:
        state: their state dict. BatchNorm's ``num_batches_tracked`` may be absent and is then 0.
        spec: an end of the road; `spec_of` reads it from ``state``.
        key_map: a key of `KEY_MAPS`; detected from the names if left out.
        num_classes: of the network; as many as in ``state`` if left out, 0 drops the classifier.
        in_chans: channels of the network's images; as many as in ``state`` if left out.

    Raises:
        PretrainedError: the weights are not those of such a network.
    """
    state = unwrap(state)
    known = _known(state, key_map)
    stem, head = known.names["stem.conv"], known.names["head.fc"]
    classes = _classes(state, head, num_classes)
    chans = in_chans or _size(state, f"{stem}.weight", 1) or 3
    rows = _rows(known, spec, classes, chans)
    return _rename(_without(state, head, classes), rows, known.title, 1)


def from_roadmap(
    state: Mapping[str, Any], spec: NetSpec, key_map: str, *, num_classes: int | None = None
) -> State:
    """Weights of ``RoadmapNet(spec)`` in a layout: inverse of `to_roadmap`, same ``num_classes``.

    Raises:
        PretrainedError: the spec is not an end of that layout, or the weights are not the spec's.
    """
    state = unwrap(state)
    classes = _classes(state, "head.fc", num_classes)
    chans = _size(state, "stem.conv.weight", 1) or 3
    rows = _rows(get_key_map(key_map), spec, classes, chans)
    return _rename(
        _without(state, "head.fc", classes), rows, "the road-map network of that spec", 0
    )


def load(net: RoadmapNet, state: Mapping[str, Any], *, classifier: bool = True) -> None:
    """Copy weights in one of `KEY_MAPS` into a network, which must be an end of the road.

    With ``classifier=False`` the network keeps its own classifier, whatever ``state`` has.

    Raises:
        PretrainedError: the weights are not those of such a network; it is left as it was.
    """
    classes = net.num_classes if classifier else 0
    own = to_roadmap(state, net.spec, num_classes=classes, in_chans=net.in_chans)
    net.load_state_dict({**net.state_dict(), **own})


def _known(state: State, key_map: str | None) -> KeyMap:
    """The layout of weights, with pointwise layers as these have them."""
    known = get_key_map(key_map or detect(state))
    check_like(known, state)
    first = find(known, "{block}.branch.pw1.weight", state)
    if first is None or state[first].ndim != len("oihw"):
        return known
    kept = {end: theirs for end, theirs in known.leaves.items() if theirs[1] != "o i"}
    return dataclasses.replace(known, leaves=kept)


class WeightMapping(NamedTuple):
    """One tensor: its name, its shape and how its axes are called, here and there."""

    names: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    axes: tuple[str, str]


def _rows(key_map: KeyMap, spec: NetSpec, num_classes: int, in_chans: int) -> list[WeightMapping]:
    """From ours to theirs, for every tensor of the network."""
    check_end(key_map, spec)
    with torch.device("meta"):
        own = RoadmapNet(spec, num_classes=num_classes, in_chans=in_chans).state_dict()
    names = modules(key_map, spec.depths)
    rows: list[WeightMapping] = []
    for key, tensor in own.items():
        name, theirs = leaf(key_map, key)
        axes = (_OURS.get(theirs, theirs), theirs)
        there = rearrange(tensor, " -> ".join(axes))
        target = f"{names[key.rpartition('.')[0]]}.{name}"
        shapes = tuple(tensor.shape), tuple(there.shape)
        rows.append(WeightMapping((key, target), shapes, axes))
    return rows


def _rename(state: State, rows: list[WeightMapping], title: str, source: int) -> State:
    """The weights in the other form: ``source`` is 0 for ours, 1 for theirs."""
    target, shapes = 1 - source, {row.names[source]: row.shapes[source] for row in rows}
    problems = {
        "missing": [k for k in shapes if k not in state and not k.endswith(_OPTIONAL)],
        "unexpected": [k for k in state if k not in shapes],
        "of another shape": [
            f"{k} {list(state[k].shape)} instead of {list(shape)}"
            for k, shape in shapes.items()
            if k in state and tuple(state[k].shape) != shape
        ],
    }
    told = [f"{len(keys)} {what}: {few(keys)}" for what, keys in problems.items() if keys]
    if told:
        raise PretrainedError(f"the weights are not those of {title}: {'; '.join(told)}")
    zero = torch.zeros((), dtype=torch.long)
    return {
        row.names[target]: rearrange(
            state.get(row.names[source], zero), f"{row.axes[source]} -> {row.axes[target]}"
        )
        for row in rows
    }


def _classes(state: State, head: str, wanted: int | None) -> int:
    """Classes of the network: as many as wanted, or as the classifier in ``state`` has."""
    found = _size(state, f"{head}.weight", 0) or _size(state, f"{head}.bias", 0)
    if wanted and found and wanted != found:
        raise PretrainedError(
            f"the weights have a classifier of {found} classes, the network one of {wanted}; "
            "leave it out with num_classes=0 (with classifier=False where they are loaded)"
        )
    if wanted is not None:
        return wanted
    return found or 1  # a classifier that is not there is told as missing, whatever its size


def _without(state: State, head: str, num_classes: int) -> State:
    """The state without its classifier where the network has none."""
    if num_classes:
        return state
    return {key: value for key, value in state.items() if not key.startswith(f"{head}.")}


def _size(state: State, key: str, axis: int) -> int | None:
    shape = state[key].shape if key in state else ()
    return shape[axis] if len(shape) > axis else None
