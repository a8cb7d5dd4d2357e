"""The channels of networks that are not this study's own, traced with torch-pruning's graph.

Only hidden widths are pruned: filters of one layer that only later layers read. Residual streams
keep their width. Gates that multiply the channels lose them too; a grouped convolution loses as
many channels of each group, and an attention whole heads. A norm that averages over channels
(LayerNorm, GroupNorm, GRN) keeps all of them: removing a channel changes the mean that the others
are divided by, and zeros in its place do not. In a ConvNeXt that leaves the 4C within each block.
The graph can narrow a stream, but not what one block reads of it (``select1``).

A mask zeroes the weights that read a channel. Every group is verified: `sound_groups` narrows a
copy and compares it with the mask.
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

from convnext_study.errors import UserError, first_line
from convnext_study.studies.pruning.channel_groups import Group, Kept, check_kept

EXTRA = "convnext-study[pruning]"
_STAGE = re.compile(r"(?:stages\.|layer)(\d+)")
CLOSE = 1e-7  # relative difference of outputs in double precision; sound groups have 1e-12


class Sound(NamedTuple):
    """Groups whose removal was compared with the mask: those that agree, names of the others, the
    largest relative difference of those that agree, and the error, one line, if removing all of
    them raised one."""

    groups: tuple[Group, ...]
    left_whole: tuple[str, ...]
    difference: float
    fault: str = ""


class _Member(NamedTuple):
    """A layer, or a parameter outside of layers, that changes with channels."""

    kind: str
    layer: Any
    indices: list[int]  # of its channels


class DependencyGraph:
    """Which layers use a network's channels, traced with one image.

    Raises UserError if torch-pruning is not installed or cannot trace the network.
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
        groups: list[Group] = []
        taken: set[str] = set()
        for layer, name in self.names.items():
            parent = self.net.get_submodule(name.rpartition(".")[0])
            group = _heads(name, layer, parent)
            if group is None and name not in taken and not hasattr(parent, "num_heads"):
                group = self._hidden(name, layer)
            if group is not None:
                groups.append(group)
                taken |= {*group.producers, *group.gates}
        return tuple(groups)

    def mask(self, kept: Kept) -> None:
        """Zero, in place, the weights that read the channels that `remove` takes out."""
        with torch.no_grad():
            for group, channels in check_kept(kept, self.groups):
                lost = group.gone(channels)
                if group.heads:
                    attention = self._attention(group)
                    width = _attention_width(attention)
                    columns = [channel for channel in lost if channel < width]
                    attention.proj.weight[:, columns] = 0.0
                    continue
                for kind, layer, indices in self._members(group.name, lost):
                    if kind == "consumer":
                        columns = sorted({index % layer.weight.shape[1] for index in indices})
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
                module.splits = [conv.in_channels for conv in module.children()]

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
                [int(index) for index in indices],
            )
            for dep, indices in self._group(name, channels)
        ]

    def _hidden(self, name: str, layer: Any) -> Group | None:
        """The group of a layer's filters, or None if its outputs are not a hidden width."""
        if not isinstance(layer, nn.Conv2d | nn.Linear) or _is_depthwise(layer):
            return None
        if self.graph.get_pruner_of_module(layer) is None or layer not in self.graph.module2node:
            return None
        width = int(layer.weight.shape[0])
        members = self._members(name, list(range(width)))
        others = [m.layer for m in members if m.kind == "producer" and m.layer is not layer]
        gates = tuple(self.names[other] for other in others if self._is_gate(other))
        if len(gates) < len(others) or any(m.kind == "foreign" for m in members):
            return None
        parts = self._joined_parts(name, layer)
        grouped = [m.layer.groups for m in members if _is_grouped(m)]
        read = width // parts
        # Parallel convolutions that read a part each: as many channels of each part are removed.
        counts = {len(m.indices) for m in members if m.kind in ("consumer", "depthwise")}
        parallel = {read // count for count in counts if count < read and read % count == 0}
        if any(count < read and read % count for count in counts):
            return None
        sets = max([parts, *grouped, *parallel])
        if width % sets or parts not in (1, sets):
            return None
        producers, norms, consumers, concatenated = [name], [], [], False
        for kind, module, indices in members:
            if kind == "consumer" and len(indices) > read and len(indices) % read:
                return None  # such as heads of an attention that share keys
            if kind == "depthwise":
                producers.append(self.names[module])
            elif kind == "norm" and module.num_features == len(indices):
                norms.append(self.names[module])
            elif kind == "consumer" and _inputs(module) == len(indices):
                consumers.append((self.names[module], len(indices) // read))
            elif kind in ("norm", "consumer"):  # of more channels than these
                concatenated = True
        if not consumers and not concatenated:
            return None  # nothing reads them: the network's outputs
        units = tuple(zip(*torch.arange(width).view(sets, -1).tolist(), strict=True))
        return Group(
            name,
            width,
            tuple(dict.fromkeys(producers)),
            tuple(dict.fromkeys(norms)),
            tuple(consumers),
            concatenated,
            stage=_stage(name),
            gates=gates,
            units=units if sets > 1 else (),
        )

    def _is_gate(self, layer: nn.Module) -> bool:
        """Whether a layer's outputs are only used as a factor of other channels."""
        node = self.graph.module2node[layer]
        while len(node.outputs) == 1:
            node = node.outputs[0]
            if len(node.inputs) > 1:
                return "Mul" in str(getattr(node.module, "_grad_fn", ""))
        return False

    def _joined_parts(self, name: str, layer: Any) -> int:
        """Number of equal parts into which the outputs are split, if these are joined again channel
        by channel; else 1."""
        (first, *_) = (m.indices for m in self._members(name, [0]) if m.layer is layer)
        return len(first)


def sound_groups(net: nn.Module, image_size: tuple[int, int, int]) -> Sound:
    """The channels that can be removed: a copy without half of them has the masked one's outputs.

    For this test the norms' weights, biases and statistics are drawn, so that zeros hide nothing.
    If it fails, layers of one kind (names equal up to numbers) are tried together, then by halves;
    if both the first and the last layer of a kind fail, all of it stays whole. Raises UserError as
    `DependencyGraph` does, and what torch and Python raise if memory is short.
    """
    candidates, difference, fault = _compare(net, image_size, None)
    if difference < CLOSE:
        return Sound(candidates, (), difference)
    kinds: dict[str, list[Group]] = {}
    for group in candidates:
        kinds.setdefault(re.sub(r"\d+", "#", group.name), []).append(group)
    passed = [group for kind in kinds.values() for group in _passing(net, image_size, kind)]
    sound = tuple(group for group in candidates if group in passed)
    difference = _compare(net, image_size, sound)[1] if sound else 0.0
    if difference >= CLOSE:
        sound, difference = (), 0.0
    names = {group.name for group in sound}
    whole = tuple(group.name for group in candidates if group.name not in names)
    return Sound(sound, whole, difference, fault)


def _passing(net: nn.Module, size: tuple[int, int, int], kind: Sequence[Group]) -> Sequence[Group]:
    """The groups of one kind of layer whose removal equals the mask."""
    if _compare(net, size, kind)[1] < CLOSE:
        return kind
    if len(kind) == 1 or not any(
        _compare(net, size, [group])[1] < CLOSE for group in (kind[0], kind[-1])
    ):
        return []
    middle = len(kind) // 2
    return [*_passing(net, size, kind[:middle]), *_passing(net, size, kind[middle:])]


def _compare(
    net: nn.Module, size: tuple[int, int, int], groups: Sequence[Group] | None
) -> tuple[tuple[Group, ...], float, str]:
    """The candidates; the relative difference of outputs between a copy with half of these groups'
    channels masked (None: of all candidates) and one with them removed, infinite if that raises;
    and the error.

    The first half stays, so that a part of a layer that alone reads the others loses all inputs."""
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
        difference = float((narrow - masked).abs().max()) / scale if scale else math.inf
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a network's own code raises at other widths
        return graph.groups, math.inf, first_line(error)
    return graph.groups, difference if math.isfinite(difference) else math.inf, ""


def _settled(net: nn.Module) -> nn.Module:
    """A copy in double precision and evaluation mode, in which no two channels are equal."""
    draw = torch.Generator().manual_seed(1)
    copied = copy.deepcopy(net).cpu().double().eval()
    with torch.no_grad():
        for name, value in copied.state_dict(keep_vars=True).items():
            if not value.is_floating_point():
                continue
            drawn = torch.rand(value.shape, generator=draw, dtype=torch.float64)
            if value.numel() == max(value.shape, default=1):  # one per channel, or a scalar
                is_shift = name.endswith(("bias", "running_mean"))
                value.copy_(0.2 * drawn - 0.1 if is_shift else 0.5 + drawn)
            elif not value.any():
                value.copy_(0.2 * drawn - 0.1)
    return copied


def _heads(name: str, layer: nn.Module, parent: Any) -> Group | None:
    """The heads of timm's attention, named by its ``qkv``: a unit is a head's queries, keys and
    values."""
    from timm.layers.attention import Attention

    if not isinstance(parent, Attention) or layer is not parent.qkv:
        return None
    if getattr(parent, "gate", None) is not None:  # older versions have no such attribute
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
    columns = [channel for channel in lost if channel < width]
    torch_pruning.prune_linear_out_channels(attention.qkv, lost)
    torch_pruning.prune_linear_in_channels(attention.proj, columns)
    attention.attn_dim = width - len(columns)
    attention.num_heads = attention.attn_dim // attention.head_dim


def _attention_width(attention: Any) -> int:
    """Width of all heads together, which older versions of timm do not store."""
    return int(attention.num_heads * attention.head_dim)


def _kind(layer: Any, is_output: bool) -> str:
    """How a layer uses channels that are its outputs, or its inputs."""
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
    return int(match[1]) if (match := _STAGE.search(name)) else 0


def _follow_widths(net: nn.Module) -> None:
    """Let timm's blurred pooling take any number of channels, instead of a fixed one."""
    modules: Any = net.modules()
    for module in modules:
        if type(module).__name__ == "BlurPool2d" and module.channels is not None:
            module.filt, module.channels = module.filt[:1], None


def _trace(net: nn.Module, image_size: tuple[int, int, int]) -> Any:
    import torch_pruning

    weight = next(net.parameters())
    image = torch.zeros((1, *image_size), dtype=weight.dtype, device=weight.device)
    was_training = net.training
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about parameters outside of layers
            graph = torch_pruning.DependencyGraph()
            graph.build_dependency(net.eval(), example_inputs=image)
    except Exception as error:
        what = first_line(error)
        side = "x".join(map(str, image_size[1:]))
        name = type(net).__name__
        raise UserError(f"torch-pruning cannot follow {name} at {side}: {what}") from error
    finally:
        net.train(was_training)
    return graph
