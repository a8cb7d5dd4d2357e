"""The channels that can go in a network of any kind, by torch-pruning's dependency graph.

Only its graph is used, with scores and rules of our own. What goes is the hidden width of a layer:
one layer's filters, read by later layers alone. Residual streams keep their width. Where a norm
averages over channels (LayerNorm, GroupNorm, GRN) nothing goes either, since removing a channel
would change the mean that the others are divided by, which zeros in its place would not: in a
ConvNeXt that leaves the 4C channels within each block.

torch-pruning does not serve for selections (``select1`` of a PreResNet or DenseNet): it can narrow
what a stream holds, and not what one block reads of it.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from typing import Any

import torch
from torch import nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.groups import Group, Kept, check_kept

EXTRA = "convnext-study[pruning]"
_STAGE = re.compile(r"(?:stages\.|layer)(\d+)")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Traced:
    """A network whose channels' uses are known.

    Args:
        net: maps images to anything.
        image_size: (channels, height, width) of the images that it is traced with.

    Raises:
        UserError: torch-pruning is not installed, or cannot follow the network.
    """

    def __init__(self, net: nn.Module, image_size: tuple[int, int, int]) -> None:
        if importlib.util.find_spec("torch_pruning") is None:
            raise UserError(f"pruning this network needs torch-pruning; pip install '{EXTRA}'")
        self.net = net
        self.names = {module: name for name, module in net.named_modules()}
        self.graph = _trace(net, image_size)
        self.groups = tuple(self._groups())

    def mask(self, kept: Kept) -> None:
        """Set to zero, in place, what `remove` takes out: filters, biases, norms' parameters."""
        for name, channels in check_kept(kept, self.groups).items():
            gone = _others(channels, self._width(name))
            for layer, is_output, places in self._members(name, gone):
                if is_output and _kind(layer, is_output) != "operation":
                    zero_channels(layer, places)

    def remove(self, kept: Kept) -> None:
        """Narrow the layers, in place."""
        for name, channels in check_kept(kept, self.groups).items():
            gone = _others(channels, self._width(name))
            if gone:
                self._group(name, gone).prune()
        self.names = {module: name for name, module in self.net.named_modules()}

    def _width(self, name: str) -> int:
        return next(group.width for group in self.groups if group.name == name)

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

    def _groups(self) -> list[Group]:
        found = []
        for layer, name in self.names.items():
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
                group = self._hidden(name, layer)
                if group is not None:
                    found.append(group)
        return found

    def _hidden(self, name: str, layer: Any) -> Group | None:
        """The layer's own group, or None where its outputs are no hidden width."""
        width = int(layer.weight.shape[0])
        if self.graph.get_pruner_of_module(layer) is None or layer not in self.graph.module2node:
            return None
        producers, norms, consumers, concatenated = [name], [], [], False
        for module, is_output, places in self._members(name, list(range(width))):
            kind = _kind(module, is_output)
            if kind == "stranger" or (kind == "producer" and module is not layer):
                return None
            if kind == "consumer" and len(places) % width:
                return None  # heads of an attention, say, which share what is read
            if kind == "depthwise":
                producers.append(self.names[module])
            elif kind in ("norm", "consumer") and _inputs(module) > len(places):
                concatenated = True
            elif kind == "norm":
                norms.append(self.names[module])
            elif kind == "consumer":
                consumers.append((self.names[module], len(places) // width))
        if not consumers and not concatenated:
            return None  # nothing reads them: the network's outputs
        unique = tuple(dict.fromkeys(producers))
        norms = list(dict.fromkeys(norms))
        stage = int(found[1]) if (found := _STAGE.search(name)) else 0
        return Group(name, width, unique, tuple(norms), tuple(consumers), concatenated, stage=stage)


def _inputs(layer: Any) -> int:
    """Channels that a norm or a layer reads."""
    return int(layer.num_features if isinstance(layer, _NORMS) else layer.weight.shape[1])


def _kind(layer: Any, is_output: bool) -> str:
    """What a layer is to channels that are its outputs, or its inputs."""
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else "stranger"
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return "producer" if is_output else "consumer"
    if isinstance(layer, _NORMS):
        return "norm"
    return "operation" if type(layer).__name__.startswith("_") else "stranger"


def zero_channels(layer: nn.Module, channels: list[int]) -> None:
    """Set these outputs' weights and biases to zero, of any layer that has them in rows."""
    with torch.no_grad():
        for weight in (layer.weight, layer.bias):
            if isinstance(weight, torch.Tensor):
                weight[channels] = 0.0


def _trace(net: nn.Module, image_size: tuple[int, int, int]) -> Any:
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


def _others(channels: tuple[int, ...], width: int) -> list[int]:
    kept = set(channels)
    return [channel for channel in range(width) if channel not in kept]
