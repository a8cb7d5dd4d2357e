"""From the channels that stay to a network, by masks in place or by removal, and to its record.

    groups = groups_of(net, image_size)
    kept = keep_filters(net, groups, {"stages.0.blocks.0.conv1": 8})
    mask(net, kept, image_size)               # as large as before, the others are zero
    small = remove(net, kept, image_size)     # a narrower network with the same outputs

Networks of this study know their channels from their spec; all others, those of the road maps and
timm's, are traced with torch-pruning's dependency graph. What goes there is the hidden width of a
layer: one layer's filters, read by later layers alone. Residual streams keep their width. Where a
norm averages over channels (LayerNorm, GroupNorm, GRN) nothing goes either: removing a channel
changes the mean that the others are divided by, and zeros in its place do not. In a ConvNeXt that
leaves the 4C within each block. The graph can narrow what a stream holds, and not what one block
reads of it (``select1``).
"""

from __future__ import annotations

import copy
import importlib.util
import re
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from convnext_study.errors import UserError
from convnext_study.models.builders import ROADMAP_BUILDER, get_builder
from convnext_study.models.timm_model import TimmModel
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import (
    Group,
    Kept,
    check_kept,
    narrowed,
    spec_groups,
)
from convnext_study.studies.pruning.families import refilled
from convnext_study.studies.pruning.spec import BaseSpec, Spec, from_dict

ImageSize: TypeAlias = tuple[int, int, int]  # channels, height, width
OWN, NARROWED = "pruning", "pruning-narrowed"  # builders in records, as in the `Study`
EXTRA = "convnext-study[pruning]"
_STAGE = re.compile(r"(?:stages\.|layer)(\d+)")


def spec_of(net: nn.Module) -> Spec | None:
    """The spec of a network of this study; None for any other."""
    spec: Any = getattr(net, "spec", None)
    return spec if isinstance(spec, BaseSpec) else None  # type: ignore[return-value]


def groups_of(net: nn.Module, image_size: ImageSize) -> tuple[Group, ...]:
    """The channels that can go, in the network's order.

    Raises UserError for a network that cannot be traced, or where torch-pruning is missing.
    """
    spec = spec_of(net)
    return spec_groups(spec) if spec is not None else DependencyGraph(net, image_size).groups


def mask(net: nn.Module, kept: Kept, image_size: ImageSize) -> None:
    """Set all that the other channels have to zero, in place.

    Outputs are then those of the network without them, to rounding, where an activation maps zero
    to zero. Raises PruningError for a layer that is unknown or would be empty.
    """
    spec = spec_of(net)
    if spec is None:
        DependencyGraph(net, image_size).mask(kept)
        return
    for group, channels in check_kept(kept, spec_groups(spec)):
        lost = group.gone(channels)
        if group.positions and group.norms:  # a stream that others read too: only its norm
            places = [group.positions[channel] for channel in lost]
            _zero(net.get_submodule(group.norms[0]), places)
        elif group.positions:
            with torch.no_grad():
                for reader, _ in group.consumers:
                    net.get_parameter(f"{reader}.weight")[:, lost] = 0.0
        else:
            for layer in (*group.producers, *group.norms):
                _zero(net.get_submodule(layer), lost)


def remove(net: nn.Module, kept: Kept, image_size: ImageSize) -> nn.Module:
    """A network without the other channels, with the weights that are left; ``net`` stays whole.

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
            inputs[reader] = [at * repeat + i for at in channels for i in range(repeat)]
    state = net.state_dict()
    for key, tensor in state.items():
        layer, _, name = key.rpartition(".")
        if layer in outputs and tensor.ndim > 0:
            state[key] = tensor[list(outputs[layer])]
        if layer in inputs and name == "weight":
            state[key] = state[key][:, list(inputs[layer])]
    return refilled(net, narrowed(spec, kept), state)


def network_of(model: ModelRef, classes: int, **changes: Any) -> nn.Module:
    """A record's network, with any weights; ``changes`` are ``drop_path`` and ``init``."""
    how = {"drop_path": 0.0, "init": "kaiming", **changes}
    net: nn.Module = get_builder(model.builder)(model.args, num_classes=classes, **how)
    return net


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


def build_narrowed(args: dict[str, Any], *, num_classes: int, **how: Any) -> nn.Module:
    """The network of a record that `pruned_ref` made of another room's.

    The parent is built and the same channels are removed. A network of this package then starts as
    networks of its widths do; others keep what is left of their parent's start.
    """
    net = network_of(ModelRef(**args["parent"]), num_classes, **how)
    channels, height, width = args["image_size"]
    DependencyGraph(net, (channels, height, width)).remove(args["kept"])
    if isinstance(net, TimmModel):
        net.init_weights(how["init"])
    return net


def same_architecture(one: ModelRef, other: ModelRef) -> bool:
    """Whether weights of the one fit the other: of a traced network only the number of channels
    counts, not which ones they were."""
    if not one.builder == other.builder == NARROWED:
        return one == other
    mine, its = (
        {**ref.args, "kept": {name: len(kept) for name, kept in ref.args["kept"].items()}}
        for ref in (one, other)
    )
    return mine == its


class DependencyGraph:
    """A network whose channels' uses are known: those of ``net``, traced with one image.

    Raises UserError where torch-pruning is not installed, or cannot follow the network.
    """

    def __init__(self, net: nn.Module, image_size: ImageSize) -> None:
        if importlib.util.find_spec("torch_pruning") is None:
            raise UserError(f"pruning this network needs torch-pruning; pip install '{EXTRA}'")
        self.net = net
        self.names = {module: name for name, module in net.named_modules()}
        self.graph = _trace(net, image_size)
        hidden = (self._hidden(name, layer) for layer, name in self.names.items())
        self.groups = tuple(group for group in hidden if group is not None)

    def mask(self, kept: Kept) -> None:
        """Set to zero, in place, what `remove` takes out: filters, biases, norms' parameters."""
        for group, channels in check_kept(kept, self.groups):
            for kind, layer, places in self._members(group.name, group.gone(channels)):
                if kind in ("producer", "depthwise", "norm"):
                    _zero(layer, places)

    def remove(self, kept: Kept) -> None:
        """Narrow the layers, in place."""
        for group, channels in check_kept(kept, self.groups):
            if lost := group.gone(channels):
                self._group(group.name, lost).prune()

    def _group(self, name: str, channels: list[int]) -> Any:
        layer = self.net.get_submodule(name)
        prune_outputs = self.graph.get_pruner_of_module(layer).prune_out_channels
        return self.graph.get_pruning_group(layer, prune_outputs, idxs=channels)

    def _members(self, name: str, channels: list[int]) -> list[tuple[str, Any, list[int]]]:
        """Layers that change with these channels: what they are to them, and which of theirs."""
        return [
            (
                _kind(dep.target.module, self.graph.is_out_channel_pruning_fn(dep.handler)),
                dep.target.module,
                [int(place) for place in places],
            )
            for dep, places in self._group(name, channels)
        ]

    def _hidden(self, name: str, layer: Any) -> Group | None:
        """The layer's own group, or None where its outputs are no hidden width."""
        if not isinstance(layer, nn.Conv2d | nn.Linear) or getattr(layer, "groups", 1) > 1:
            return None
        width = int(layer.weight.shape[0])
        if self.graph.get_pruner_of_module(layer) is None or layer not in self.graph.module2node:
            return None
        producers, norms, consumers, concatenated = [name], [], [], False
        for kind, module, places in self._members(name, list(range(width))):
            if kind == "foreign" or (kind == "producer" and module is not layer):
                return None
            if kind == "consumer" and len(places) % width:
                return None  # heads of an attention, say, which share what is read
            if kind == "depthwise":
                producers.append(self.names[module])
            elif kind == "norm" and module.num_features == len(places):
                norms.append(self.names[module])
            elif kind == "consumer" and module.weight.shape[1] == len(places):
                consumers.append((self.names[module], len(places) // width))
            elif kind in ("norm", "consumer"):  # of more channels than these
                concatenated = True
        if not consumers and not concatenated:
            return None  # nothing reads them: the network's outputs
        stage = int(found[1]) if (found := _STAGE.search(name)) else 0
        own, over = (tuple(dict.fromkeys(layers)) for layers in (producers, norms))
        return Group(name, width, own, over, tuple(consumers), concatenated, stage=stage)


def _kind(layer: Any, is_output: bool) -> str:
    """What a layer is to channels that are its outputs, or its inputs."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else "foreign"
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return "producer" if is_output else "consumer"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return "norm"
    return "operation" if type(layer).__name__.startswith("_") else "foreign"


def _trace(net: nn.Module, image_size: ImageSize) -> Any:
    import torch_pruning

    weight = next(net.parameters())
    image = torch.zeros((1, *image_size), dtype=weight.dtype, device=weight.device)
    was_training = net.training
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # of parameters that are no layer's
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(net.eval(), example_inputs=image)
    except Exception as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"torch-pruning cannot follow {type(net).__name__}: {what}") from error
    finally:
        net.train(was_training)
    return graph


def _zero(layer: nn.Module, channels: list[int]) -> None:
    """Set these outputs' weights and biases to zero, of any layer that has them in rows."""
    with torch.no_grad():
        for weight in (layer.weight, layer.bias):
            if isinstance(weight, torch.Tensor):
                weight[channels] = 0.0
