"""The channels of networks that are not this study's own, traced with torch-pruning's graph.

What goes is the hidden width of a layer: one layer's filters, read by later layers alone. Residual
streams keep their width. Gates that multiply the channels lose them too; where a convolution has
groups, as many channels of each go, and of an attention whole heads. Where a norm averages over
channels (LayerNorm, GroupNorm, GRN) nothing goes: removing a channel changes the mean that the
others are divided by, and zeros in its place do not. In a ConvNeXt that leaves the 4C within each
block. The graph can narrow what a stream holds, and not what one block reads of it (``select1``).

A mask sets what reads a channel to zero. Nothing is believed that was not tried: `sound_groups`
narrows a copy and compares it with the mask.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.channel_groups import Group, Kept, check_kept

EXTRA = "convnext-study[pruning]"
_STAGE = re.compile(r"(?:stages\.|layer)(\d+)")
CLOSE = 1e-7  # of outputs in double precision, where all is right 1e-12


class Sound(NamedTuple):
    """Groups whose removal was compared with the mask: those that can go, names of the others, the
    largest difference of all that can, over the largest output, and the error, one line, where
    removing them all failed with one."""

    groups: tuple[Group, ...]
    left_whole: tuple[str, ...]
    difference: float
    fault: str = ""


class _Member(NamedTuple):
    """A layer, or a parameter that is no layer's, that changes with channels."""

    kind: str
    layer: Any
    places: list[int]  # which of its channels


class DependencyGraph:
    """A network whose channels' uses are known: those of ``net``, traced with one image.

    Raises UserError where torch-pruning is not installed, or cannot follow the network.
    """

    def __init__(self, net: nn.Module, image_size: tuple[int, int, int]) -> None:
        if importlib.util.find_spec("torch_pruning") is None:
            raise UserError(f"pruning this network needs torch-pruning; pip install '{EXTRA}'")
        self.net = net
        self.names = {module: name for name, module in net.named_modules()}
        _follow_widths(net)
        self.graph = _trace(net, image_size)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Candidates, in the network's order, no filter in two of them."""
        found: list[Group] = []
        taken: set[str] = set()
        for layer, name in self.names.items():
            parent = self.net.get_submodule(name.rpartition(".")[0])
            group = _heads(name, layer, parent)
            if group is None and name not in taken and not hasattr(parent, "num_heads"):
                group = self._hidden(name, layer)
            if group is not None:
                found.append(group)
                taken |= {*group.producers, *group.gates}
        return tuple(found)

    def mask(self, kept: Kept) -> None:
        """Set to zero, in place, the weights that read the channels that `remove` takes out."""
        with torch.no_grad():
            for group, channels in check_kept(kept, self.groups):
                lost = group.gone(channels)
                if group.heads:
                    attention = self._attention(group)
                    columns = [one for one in lost if one < _attention_width(attention)]
                    attention.proj.weight[:, columns] = 0.0
                    continue
                for kind, layer, places in self._members(group.name, lost):
                    if kind == "consumer":
                        columns = sorted({place % layer.weight.shape[1] for place in places})
                        layer.weight[:, columns] = 0.0

    def remove(self, kept: Kept) -> None:
        """Narrow the layers, in place."""
        for group, channels in check_kept(kept, self.groups):
            lost = group.gone(channels)
            if lost and group.heads:
                _remove_heads(self._attention(group), lost)
            elif lost:
                self._group(group.name, lost).prune()
        modules: Any = self.net.modules()
        for module in modules:
            if type(module).__name__ == "MixedConv2d":
                module.splits = [one.in_channels for one in module.children()]

    def _attention(self, group: Group) -> Any:
        return self.net.get_submodule(group.name.rpartition(".")[0])

    def _group(self, name: str, channels: list[int]) -> Any:
        layer = self.net.get_submodule(name)
        prune_outputs = self.graph.get_pruner_of_module(layer).prune_out_channels
        return self.graph.get_pruning_group(layer, prune_outputs, idxs=channels)

    def _members(self, name: str, channels: list[int]) -> list[_Member]:
        return [
            _Member(
                _kind(dep.target.module, self.graph.is_out_channel_pruning_fn(dep.handler)),
                dep.target.module,
                [int(place) for place in places],
            )
            for dep, places in self._group(name, channels)
        ]

    def _hidden(self, name: str, layer: Any) -> Group | None:
        """The layer's own group, or None where its outputs are no hidden width."""
        if not isinstance(layer, nn.Conv2d | nn.Linear) or _is_depthwise(layer):
            return None
        if self.graph.get_pruner_of_module(layer) is None or layer not in self.graph.module2node:
            return None
        width = int(layer.weight.shape[0])
        members = self._members(name, list(range(width)))
        others = [one.layer for one in members if one.kind == "producer" and one.layer is not layer]
        gates = tuple(self.names[one] for one in others if self._is_gate(one))
        if len(gates) < len(others) or any(one.kind == "foreign" for one in members):
            return None
        halves = self._halves(name, layer)
        grouped = [one.layer.groups for one in members if _is_grouped(one)]
        read = width // halves
        # Convolutions that see a part each, side by side: as many channels of each part go.
        seen = {len(one.places) for one in members if one.kind in ("consumer", "depthwise")}
        parts = {read // count for count in seen if count < read and read % count == 0}
        if any(count < read and read % count for count in seen):
            return None
        sets = max([halves, *grouped, *parts])
        if width % sets or halves not in (1, sets):
            return None
        producers, norms, consumers, concatenated = [name], [], [], False
        for kind, module, places in members:
            if kind == "consumer" and len(places) > read and len(places) % read:
                return None  # heads of an attention, say, which share what is read
            if kind == "depthwise":
                producers.append(self.names[module])
            elif kind == "norm" and module.num_features == len(places):
                norms.append(self.names[module])
            elif kind == "consumer" and _inputs(module) == len(places):
                consumers.append((self.names[module], len(places) // read))
            elif kind in ("norm", "consumer"):  # of more channels than these
                concatenated = True
        if not consumers and not concatenated:
            return None  # nothing reads them: the network's outputs
        own, over = (tuple(dict.fromkeys(layers)) for layers in (producers, norms))
        units = tuple(zip(*torch.arange(width).view(sets, -1).tolist(), strict=True))
        return Group(
            name,
            width,
            own,
            over,
            tuple(consumers),
            concatenated,
            stage=_stage(name),
            gates=gates,
            units=units if sets > 1 else (),
        )

    def _is_gate(self, layer: nn.Module) -> bool:
        """Whether all that becomes of a layer's outputs is a factor of other channels."""
        node = self.graph.module2node[layer]
        while len(node.outputs) == 1:
            node = node.outputs[0]
            if len(node.inputs) > 1:
                return "Mul" in str(getattr(node.module, "_grad_fn", ""))
        return False

    def _halves(self, name: str, layer: Any) -> int:
        """In how many equal parts the outputs are split that are then joined channel by channel."""
        (first, *_) = (one.places for one in self._members(name, [0]) if one.layer is layer)
        return len(first)


def sound_groups(net: nn.Module, image_size: tuple[int, int, int]) -> Sound:
    """The channels that can go: a copy without half of them has the outputs of the masked one.

    Weights of norms, biases and statistics are drawn for that, so that nothing is hidden by zeros.
    Where it fails, layers of one kind (names alike but for numbers) are tried together, then by
    halves; where both its first and its last layer fail alone, the kind stays whole. Raises
    UserError as `DependencyGraph` does, and what torch and Python raise where memory is short.
    """
    candidates, difference, fault = _compare(net, image_size, None)
    if difference < CLOSE:
        return Sound(candidates, (), difference)
    kinds: dict[str, list[Group]] = {}
    for group in candidates:
        kinds.setdefault(re.sub(r"\d+", "#", group.name), []).append(group)
    good = [one for same in kinds.values() for one in _good(net, image_size, same)]
    left = tuple(group for group in candidates if group in good)
    difference = _compare(net, image_size, left)[1] if left else 0.0
    if difference >= CLOSE:
        left, difference = (), 0.0
    names = {group.name for group in left}
    whole = tuple(group.name for group in candidates if group.name not in names)
    return Sound(left, whole, difference, fault)


def _good(net: nn.Module, size: tuple[int, int, int], same: Sequence[Group]) -> Sequence[Group]:
    """Those of one kind of layer whose removal equals the mask."""
    if _compare(net, size, same)[1] < CLOSE:
        return same
    if len(same) == 1 or not any(
        _compare(net, size, [one])[1] < CLOSE for one in (same[0], same[-1])
    ):
        return []
    middle = len(same) // 2
    return [*_good(net, size, same[:middle]), *_good(net, size, same[middle:])]


def _compare(
    net: nn.Module, size: tuple[int, int, int], groups: Sequence[Group] | None
) -> tuple[tuple[Group, ...], float, str]:
    """The candidates, and by how much the outputs differ without half of these groups, all where
    it is None: of the masked copy, and of what is left of it; infinite where that fails, and why.

    The first half stays: what a part of a layer reads alone would then go whole."""
    copied = _settled(net)
    graph = DependencyGraph(copied, size)
    chosen = graph.groups if groups is None else groups
    kept = {group.name: group.channels_of(range(math.ceil(group.count / 2))) for group in chosen}
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        with torch.no_grad():
            graph.mask(kept)
            masked = copied(x)
            graph.remove(kept)
            narrow = copied(x)
        scale = float(masked.abs().max())
        found = float((narrow - masked).abs().max()) / scale if scale else math.inf
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a network's own code raises at other widths
        return graph.groups, math.inf, _first_line(error)
    return graph.groups, found if math.isfinite(found) else math.inf, ""


def _settled(net: nn.Module) -> nn.Module:
    """A copy in double precision and evaluation mode, in which no two channels are alike."""
    draw = torch.Generator().manual_seed(1)
    copied = copy.deepcopy(net).cpu().double().eval()
    with torch.no_grad():
        for name, value in copied.state_dict(keep_vars=True).items():
            if not value.is_floating_point():
                continue
            drawn = torch.rand(value.shape, generator=draw, dtype=torch.float64)
            if value.numel() == max(value.shape, default=1):  # of each channel, or one in all
                is_shift = name.endswith(("bias", "running_mean"))
                value.copy_(0.2 * drawn - 0.1 if is_shift else 0.5 + drawn)
            elif not value.any():
                value.copy_(0.2 * drawn - 0.1)
    return copied


def _heads(name: str, layer: nn.Module, parent: Any) -> Group | None:
    """The heads of an attention of timm's, named by its ``qkv``: all three rows of each go."""
    from timm.layers.attention import Attention

    if not isinstance(parent, Attention) or layer is not parent.qkv:
        return None
    if getattr(parent, "gate", None) is not None:  # older ones have none
        return None
    if parent.num_heads < 2 or not isinstance(parent.norm, nn.Identity):
        return None
    width = 3 * _attention_width(parent)
    rows = torch.arange(width).view(3, parent.num_heads, -1).transpose(0, 1)
    units = tuple(map(tuple, rows.flatten(1).tolist()))
    reader = (f"{name.removesuffix('qkv')}proj", 1)
    return Group(name, width, (name,), (), (reader,), stage=_stage(name), units=units, heads=True)


def _remove_heads(attention: Any, lost: Sequence[int]) -> None:
    import torch_pruning

    width = _attention_width(attention)
    columns = [one for one in lost if one < width]
    torch_pruning.prune_linear_out_channels(attention.qkv, lost)
    torch_pruning.prune_linear_in_channels(attention.proj, columns)
    attention.attn_dim = width - len(columns)
    attention.num_heads = attention.attn_dim // attention.head_dim


def _attention_width(attention: Any) -> int:
    """Of all heads together, which older versions of timm do not store."""
    return int(attention.num_heads * attention.head_dim)


def _kind(layer: Any, is_output: bool) -> str:
    """What a layer is to channels that are its outputs, or its inputs."""
    if _is_depthwise(layer):
        return "depthwise"
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return "producer" if is_output else "consumer"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return "norm"
    if isinstance(layer, nn.Parameter | nn.PReLU):
        return "parameter"
    return "operation" if type(layer).__name__.startswith("_") else "foreign"


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _is_grouped(member: _Member) -> bool:
    return member.kind in ("producer", "consumer") and getattr(member.layer, "groups", 1) > 1


def _inputs(layer: Any) -> int:
    return int(layer.weight.shape[1]) * getattr(layer, "groups", 1)


def _stage(name: str) -> int:
    return int(found[1]) if (found := _STAGE.search(name)) else 0


def _follow_widths(net: nn.Module) -> None:
    """Let timm's blurred pooling take any number of channels, which it otherwise keeps."""
    modules: Any = net.modules()
    for module in modules:
        if type(module).__name__ == "BlurPool2d" and module.channels is not None:
            module.filt, module.channels = module.filt[:1], None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
        what = _first_line(error)
        side = "x".join(map(str, image_size[1:]))
        name = type(net).__name__
        raise UserError(f"torch-pruning cannot follow {name} at {side}: {what}") from error
    finally:
        net.train(was_training)
    return graph
