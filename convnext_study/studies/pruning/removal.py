"""From the channels to keep to a narrower network and its record.

    groups = find_groups(net, image_size).groups
    kept = keep_filters(net, groups, {"stages.0.blocks.0.conv1": 8})
    small = remove(net, kept, image_size)

The groups of this study's networks follow from their spec; all others, those of the road maps and
of timm, are traced (`dependency_graph`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import nn

from convnext_study.models.builders import ROADMAP_BUILDER, get_builder
from convnext_study.models.timm_model import TimmModel
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import (
    Kept,
    check_kept,
    narrowed,
    spec_groups,
)
from convnext_study.studies.pruning.dependency_graph import DependencyGraph, Sound, sound_groups
from convnext_study.studies.pruning.families import refilled
from convnext_study.studies.pruning.spec import BaseSpec, Spec, from_dict

ImageSize: TypeAlias = tuple[int, int, int]  # channels, height, width
OWN, NARROWED = "pruning", "pruning-narrowed"  # builders in records, as in the `Study`


def spec_of(net: nn.Module) -> Spec | None:
    """The spec of a network of this study; None for any other."""
    spec: Any = getattr(net, "spec", None)
    return spec if isinstance(spec, BaseSpec) else None  # type: ignore[return-value]


def find_groups(net: nn.Module, image_size: ImageSize) -> Sound:
    """The channels that can be removed, in the network's order, and the layers that have to stay
    whole.

    Raises UserError for a network that cannot be traced, or if torch-pruning is missing.
    """
    spec = spec_of(net)
    return sound_groups(net, image_size) if spec is None else Sound(spec_groups(spec), (), 0.0)


def remove(net: nn.Module, kept: Kept, image_size: ImageSize) -> nn.Module:
    """A copy of the network without the other channels, with the remaining weights.

    Its outputs equal, to rounding, those of ``net`` with all weights that read the other channels
    set to zero, if no norm averages over channels.

    Raises PruningError for a layer that is unknown or would be empty.
    """
    spec = spec_of(net)
    if spec is None:
        small = copy.deepcopy(net)
        DependencyGraph(small, image_size).remove(kept)
        return small
    outputs: dict[str, Sequence[int]] = {}
    inputs: dict[str, Sequence[int]] = {}
    for group, channels in check_kept(kept, spec_groups(spec)):
        if not group.positions:
            outputs |= dict.fromkeys((*group.producers, *group.norms), channels)
        for reader, repeat in group.consumers:
            inputs[reader] = [channel * repeat + i for channel in channels for i in range(repeat)]
    state = net.state_dict()
    for key, tensor in state.items():
        layer, _, name = key.rpartition(".")
        if layer in outputs and tensor.ndim > 0:
            state[key] = tensor[list(outputs[layer])]
        if layer in inputs and name == "weight":
            state[key] = state[key][:, list(inputs[layer])]
    return refilled(net, narrowed(spec, kept), state)


def network_of(model: ModelRef, classes: int, **changes: Any) -> nn.Module:
    """A record's network, initialised; ``changes`` are ``drop_path`` and ``init``."""
    options = {"drop_path": 0.0, "init": "kaiming", **changes}
    net: nn.Module = get_builder(model.builder)(model.args, num_classes=classes, **options)
    return net


def own_ref(spec: Spec) -> ModelRef:
    """The record of a network of this study."""
    return ModelRef(builder=OWN, args=spec.to_dict())


def pruned_ref(ref: ModelRef, kept: Kept, image_size: ImageSize) -> ModelRef:
    """The record of a narrower network: its spec, or the parent's record and the kept channels."""
    if ref.builder == OWN:
        return own_ref(narrowed(from_dict(ref.args), kept))
    plain = {name: [int(channel) for channel in channels] for name, channels in kept.items()}
    parent = ref.model_dump(mode="json")
    if ref.builder == ROADMAP_BUILDER:  # so that adding a field with a default changes no key
        parent["args"] = without_defaults(ref.args, NetSpec().to_dict())
    args = {"parent": parent, "kept": plain, "image_size": list(image_size)}
    return ModelRef(builder=NARROWED, args=args)


def build_narrowed(args: dict[str, Any], *, num_classes: int, **options: Any) -> nn.Module:
    """The network of a record that `pruned_ref` made of a traced one's.

    The parent is built and its channels are removed. A network of this package is then initialised
    for its new widths; others keep the remaining part of their parent's initial weights.
    """
    net = network_of(ModelRef(**args["parent"]), num_classes, **options)
    channels, height, width = args["image_size"]
    DependencyGraph(net, (channels, height, width)).remove(args["kept"])
    if isinstance(net, TimmModel):
        net.init_weights(options["init"])
    return net


def same_architecture(first: ModelRef, second: ModelRef) -> bool:
    """Whether one's weights fit the other: for traced networks the number of kept channels counts,
    not which ones they are."""
    if not first.builder == second.builder == NARROWED:
        return first == second
    widths, other_widths = (
        {**ref.args, "kept": {name: len(kept) for name, kept in ref.args["kept"].items()}}
        for ref in (first, second)
    )
    return widths == other_widths
