"""From the channels that stay to a network: by masks in place, or by removal.

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
from convnext_study.studies.pruning.channel_groups import (
    Group,
    Kept,
    check_kept,
    gone,
    narrowed,
    spec_groups,
)
from convnext_study.studies.pruning.networks.network import refilled
from convnext_study.studies.pruning.specs import FAMILIES, Spec

ImageSize: TypeAlias = tuple[int, int, int]  # channels, height, width
EXTRA = "convnext-study[pruning]"
_STAGE = re.compile(r"(?:stages\.|layer)(\d+)")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


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
        lost = gone(group, channels)
        if group.positions and group.norms:  # a stream that others read too: only its norm
            places = [group.positions[channel] for channel in lost]
            zero_channels(net.get_submodule(group.norms[0]), places)
        elif group.positions:
            with torch.no_grad():
                for reader, _ in group.consumers:
                    net.get_parameter(f"{reader}.weight")[:, lost] = 0.0
        else:
            for layer in (*group.producers, *group.norms):
                zero_channels(net.get_submodule(layer), lost)


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
            for layer, is_output, places in self._members(group.name, gone(group, channels)):
                if is_output and _kind(layer, is_output) != "operation":
                    zero_channels(layer, places)

    def remove(self, kept: Kept) -> None:
        """Narrow the layers, in place."""
        for group, channels in check_kept(kept, self.groups):
            if lost := gone(group, channels):
                self._group(group.name, lost).prune()

    def _group(self, name: str, channels: list[int]) -> Any:
        layer = self.net.get_submodule(name)
        prune_outputs = self.graph.get_pruner_of_module(layer).prune_out_channels
        return self.graph.get_pruning_group(layer, prune_outputs, idxs=channels)

    def _members(self, name: str, channels: list[int]) -> list[tuple[Any, bool, list[int]]]:
        """Layers that change with these channels; whether their outputs do; which of theirs."""
        return [
            (
                dep.target.module,
                bool(self.graph.is_out_channel_pruning_fn(dep.handler)),
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
        for module, is_output, places in self._members(name, list(range(width))):
            kind = _kind(module, is_output)
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
    if isinstance(layer, _NORMS):
        return "norm"
    return "operation" if type(layer).__name__.startswith("_") else "foreign"


def zero_channels(layer: nn.Module, channels: list[int]) -> None:
    """Set these outputs' weights and biases to zero, of any layer that has them in rows."""
    with torch.no_grad():
        for weight in (layer.weight, layer.bias):
            if isinstance(weight, torch.Tensor):
                weight[channels] = 0.0


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
