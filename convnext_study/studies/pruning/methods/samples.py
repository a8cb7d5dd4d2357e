"""What a layer reads at random places: the data of ThiNet and of regression-based pruning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.pruning.groups import Group, PruningError

CHUNK = 1024  # patches at a time, for the sake of memory

Reader = nn.Conv2d | nn.Linear  # a linear layer is a 1x1 convolution, channels last


def reader_of(net: nn.Module, group: Group) -> Reader:
    """The layer that reads the group's channels.

    Raises PruningError where that is no single convolution or linear layer, or reads a map that
    was flattened.
    """
    names = [name for name, repeat in group.consumers if repeat == 1]
    alone = len(names) == len(group.consumers) == 1 and not group.concatenated
    reader = net.get_submodule(names[0]) if alone else None
    if isinstance(reader, nn.Linear) or (isinstance(reader, nn.Conv2d) and reader.groups == 1):
        return reader
    raise PruningError(f"{group.name}: its channels are not read by one convolution alone")


def kernels(reader: Reader) -> Tensor:
    """Its weights (filters, channels, k, k), a view: what is written there is the layer's."""
    weight = reader.weight.detach()
    return weight[:, :, None, None] if isinstance(reader, nn.Linear) else weight


@torch.no_grad()
def draw_places(
    net: nn.Module, reader: Reader, images: Iterable[Tensor], count: int, draw: torch.Generator
) -> list[Tensor]:
    """Rows and columns of ``count`` random output positions of every image: (N, count, 2)."""
    found = []
    for _, y in _calls(net, reader, images):
        n, _, height, width = y.shape
        rows = torch.randint(height, (n, count), generator=draw)
        columns = torch.randint(width, (n, count), generator=draw)
        found.append(torch.stack([rows, columns], dim=-1))
    return found


@torch.no_grad()
def patches(
    net: nn.Module, reader: Reader, images: Iterable[Tensor], places: list[Tensor]
) -> Tensor:
    """What the convolution reads at those positions: (all positions, channels, k, k)."""
    found = []
    for (x, _), where in zip(_calls(net, reader, images), places, strict=True):
        padded = _pad(reader, x)
        found += [
            _patch(reader, padded[image], int(row), int(column))
            for image, positions in enumerate(where)
            for row, column in positions.tolist()
        ]
    return torch.stack(found)


@torch.no_grad()
def outputs(
    net: nn.Module, reader: Reader, images: Iterable[Tensor], places: list[Tensor]
) -> Tensor:
    """The convolution's outputs at those positions, without its bias: (all positions, filters)."""
    found = []
    for (_, y), where in zip(_calls(net, reader, images), places, strict=True):
        if reader.bias is not None:
            y = y - reader.bias.view(1, -1, 1, 1)
        for image, positions in enumerate(where):
            found.append(y[image][:, positions[:, 0], positions[:, 1]].T)
    return torch.cat(found)


def added(read: Tensor, weight: Tensor, filters: Tensor) -> Tensor:
    """What each channel adds to one output of each patch: (patches, channels), double.

    Args:
        read: patches (patches, channels, k, k).
        weight: of the layer (filters, channels, k, k).
        filters: which output of each patch (patches,).
    """
    parts = zip(torch.split(read, CHUNK), torch.split(filters, CHUNK), strict=True)
    return torch.cat(
        [(weight[which].double() * patch.double()).sum((2, 3)) for patch, which in parts]
    )


def _calls(
    net: nn.Module, reader: Reader, images: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Input and output of the layer for one batch after the other, in evaluation mode."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        x = args[0]
        kept = getattr(reader, "kept", None)  # of a stream, only what it reads
        x = x if kept is None else x.index_select(1, kept)
        calls.append((_channels_first(reader, x), _channels_first(reader, y)))

    hook, was_training = reader.register_forward_hook(keep), net.training
    try:
        net.eval()
        for batch in images:
            net(batch)
            yield calls.pop()
    finally:
        hook.remove()
        net.train(was_training)


def _channels_first(reader: Reader, x: Tensor) -> Tensor:
    """As (N, C, H, W), of a linear layer's (N, ..., C)."""
    if isinstance(reader, nn.Conv2d):
        return x
    return x.flatten(1, -2).transpose(1, 2).unsqueeze(-1) if x.ndim > 2 else x[:, :, None, None]


def _pad(reader: Reader, x: Tensor) -> Tensor:
    if isinstance(reader, nn.Linear):
        return x
    if isinstance(reader.padding, str):
        raise PruningError(f"a convolution with padding={reader.padding!r} cannot be sampled")
    height, width = reader.padding
    return F.pad(x, (width, width, height, height))


def _patch(reader: Reader, x: Tensor, row: int, column: int) -> Tensor:
    if isinstance(reader, nn.Linear):
        return x[:, row : row + 1, column : column + 1]
    top, left = row * reader.stride[0], column * reader.stride[1]
    (high, wide), (down, right) = reader.kernel_size, reader.dilation
    rows = slice(top, top + down * (high - 1) + 1, down)
    columns = slice(left, left + right * (wide - 1) + 1, right)
    return x[:, rows, columns]
