"""From the channels that stay to a network: by masks in place, or by removal.

    groups = groups_of(net, image_size)
    kept = keep_filters(net, groups, {"stages.0.blocks.0.conv1": 8})
    mask(net, kept, image_size)               # as large as before, the others are zero
    small = remove(net, kept, image_size)     # a narrower network with the same outputs
    ref = pruned_ref(ref, kept, image_size)   # the narrower network in a run's record

Networks of this study know their channels from their spec; all others, those of the road maps and
timm's, are traced with torch-pruning (`tracing`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.models.builders import ROADMAP_BUILDER, get_builder
from convnext_study.models.timm_model import TimmModel
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.groups import Group, Kept, check_kept
from convnext_study.studies.pruning.networks.build import make_network
from convnext_study.studies.pruning.networks.wiring import narrowed, spec_groups
from convnext_study.studies.pruning.specs import FAMILIES, Spec, from_dict
from convnext_study.studies.pruning.tracing import Traced, zero_channels

OWN, NARROWED = "pruning", "pruning-narrowed"  # builders

ImageSize = tuple[int, int, int]  # channels, height, width


def spec_of(net: nn.Module) -> Spec | None:
    """The spec of a network of this study; None for any other."""
    spec: Any = getattr(net, "spec", None)
    found: Spec | None = spec if type(spec) in FAMILIES.values() else None
    return found


def groups_of(net: nn.Module, image_size: ImageSize) -> tuple[Group, ...]:
    """The channels that can go, in the network's order.

    Raises UserError for a network that cannot be traced, or where torch-pruning is missing.
    """
    spec = spec_of(net)
    return spec_groups(spec) if spec is not None else Traced(net, image_size).groups


def mask(net: nn.Module, kept: Kept, image_size: ImageSize) -> None:
    """Set all that the other channels have to zero, in place.

    Outputs are then those of the network without them, to rounding, where an activation maps zero
    to zero. Raises PruningError for a layer that is unknown or would be empty.
    """
    spec = spec_of(net)
    if spec is None:
        Traced(net, image_size).mask(kept)
        return
    groups = {group.name: group for group in spec_groups(spec)}
    for name, channels in check_kept(kept, spec_groups(spec)).items():
        group = groups[name]
        gone = [channel for channel in range(group.width) if channel not in channels]
        if group.positions:
            _mask_selection(net, group, gone)
        else:
            for layer in (*group.producers, *group.norms):
                zero_channels(net.get_submodule(layer), gone)


def remove(net: nn.Module, kept: Kept, image_size: ImageSize, **kwargs: Any) -> nn.Module:
    """A network without the other channels, with the weights that are left; ``net`` stays whole.

    ``kwargs`` are further arguments of `make_network`, for networks of this study. Raises
    PruningError for a layer that is unknown or would be empty.
    """
    spec = spec_of(net)
    if spec is None:
        small = copy.deepcopy(net)
        Traced(small, image_size).remove(kept)
        return small
    return _rebuilt(net, spec, kept, kwargs)


def pruned_ref(ref: ModelRef, kept: Kept, image_size: ImageSize) -> ModelRef:
    """The record of a narrower network: its spec, or the parent's record and what stays of it."""
    if ref.builder == OWN:
        return ModelRef(builder=OWN, args=narrowed(from_dict(ref.args), kept).to_dict())
    plain = {name: [int(channel) for channel in channels] for name, channels in kept.items()}
    parent = ref.model_dump(mode="json")
    if ref.builder == ROADMAP_BUILDER:  # so that a new field, at its default, changes no key
        parent["args"] = without_defaults(ref.args, NetSpec().to_dict())
    args = {"parent": parent, "kept": plain, "image_size": list(image_size)}
    return ModelRef(builder=NARROWED, args=args)


def build_narrowed(
    args: dict[str, Any], *, num_classes: int, drop_path: float, init: str
) -> nn.Module:
    """The network of a record that `pruned_ref` made of a network of another room.

    The parent is built and the same channels are removed. A network of this package then starts as
    networks of its widths do; others keep what is left of their parent's start.
    """
    parent = ModelRef(**args["parent"])
    net = get_builder(parent.builder)(
        parent.args, num_classes=num_classes, drop_path=drop_path, init=init
    )
    channels, height, width = args["image_size"]
    Traced(net, (channels, height, width)).remove(args["kept"])
    own: Any = net if isinstance(net, TimmModel) else None
    if own is not None:
        own.init_weights(init)
    return net


def _mask_selection(net: nn.Module, group: Group, gone: Sequence[int]) -> None:
    """Of a stream that others read too: the norm before the selection, or the reader's weights."""
    if group.norms:
        places = [group.positions[channel] for channel in gone]
        zero_channels(net.get_submodule(group.norms[0]), places)
        return
    with torch.no_grad():
        for reader, _ in group.consumers:
            net.get_submodule(reader).weight[:, list(gone)] = 0.0  # type: ignore[operator]


def _rebuilt(net: Any, spec: Spec, kept: Kept, kwargs: dict[str, Any]) -> nn.Module:
    chosen = check_kept(kept, spec_groups(spec))
    outputs: dict[str, Sequence[int]] = {}
    inputs: dict[str, Sequence[int]] = {}
    for group in spec_groups(spec):
        if group.name in chosen:
            channels = chosen[group.name]
            if not group.positions:
                outputs |= dict.fromkeys((*group.producers, *group.norms), channels)
            for reader, repeat in group.consumers:
                inputs[reader] = [at * repeat + i for at in channels for i in range(repeat)]
    own = {"num_classes": net.num_classes, "in_chans": getattr(net, "in_chans", 3)}
    small = make_network(narrowed(spec, kept), **{**own, **kwargs})
    state = {key: _cut(key, tensor, outputs, inputs) for key, tensor in net.state_dict().items()}
    weight = next(net.parameters())
    small.to(weight.device, weight.dtype).train(net.training)
    small.load_state_dict(state)
    return small


def _cut(
    key: str,
    tensor: Tensor,
    outputs: dict[str, Sequence[int]],
    inputs: dict[str, Sequence[int]],
) -> Tensor:
    layer, _, name = key.rpartition(".")
    if layer in outputs and tensor.ndim > 0:
        tensor = tensor[list(outputs[layer])]
    if layer in inputs and name == "weight":
        tensor = tensor[:, list(inputs[layer])]
    return tensor
