"""What a layer reads at random places: the data of ThiNet and of regression-based pruning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.pruning.groups import Group, PruningError


def reader_of(net: nn.Module, group: Group) -> nn.Conv2d:
    """The convolution that reads the group's channels.

    Raises PruningError where that is no single convolution.
    """
    readers = [net.get_submodule(name) for name, _ in group.consumers]
    if len(readers) != 1 or not isinstance(readers[0], nn.Conv2d) or readers[0].groups != 1:
        raise PruningError(f"{group.name}: its channels are not read by one convolution alone")
    return readers[0]


def draw_places(
    net: nn.Module, reader: nn.Conv2d, images: Iterable[Tensor], count: int, draw: torch.Generator
) -> list[Tensor]:
    """Rows and columns of ``count`` random output positions of every image: (N, count, 2)."""
    found = []
    for _, y in _calls(net, reader, images):
        n, _, height, width = y.shape
        rows = torch.randint(height, (n, count), generator=draw)
        columns = torch.randint(width, (n, count), generator=draw)
        found.append(torch.stack([rows, columns], dim=-1))
    return found


def patches(
    net: nn.Module, reader: nn.Conv2d, images: Iterable[Tensor], places: list[Tensor]
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


def outputs(
    net: nn.Module, reader: nn.Conv2d, images: Iterable[Tensor], places: list[Tensor]
) -> Tensor:
    """The convolution's outputs at those positions, without its bias: (all positions, filters)."""
    found = []
    for (_, y), where in zip(_calls(net, reader, images), places, strict=True):
        if reader.bias is not None:
            y = y - reader.bias.view(1, -1, 1, 1)
        for image, positions in enumerate(where):
            found.append(y[image][:, positions[:, 0], positions[:, 1]].T)
    return torch.cat(found)


@torch.no_grad()
def _calls(
    net: nn.Module, reader: nn.Conv2d, images: Iterable[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Input and output of the convolution for each batch, in evaluation mode."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        x = args[0]
        kept = getattr(reader, "kept", None)  # of a stream, only what it reads
        calls.append((x if kept is None else x.index_select(1, kept), y))

    hook, was_training = reader.register_forward_hook(keep), net.training
    try:
        net.eval()
        for batch in images:
            net(batch)
    finally:
        hook.remove()
        net.train(was_training)
    return calls


def _pad(reader: nn.Conv2d, x: Tensor) -> Tensor:
    if isinstance(reader.padding, str):
        raise PruningError(f"a convolution with padding={reader.padding!r} cannot be sampled")
    height, width = reader.padding
    return F.pad(x, (width, width, height, height))


def _patch(reader: nn.Conv2d, x: Tensor, row: int, column: int) -> Tensor:
    top, left = row * reader.stride[0], column * reader.stride[1]
    (high, wide), (down, right) = reader.kernel_size, reader.dilation
    rows = slice(top, top + down * (high - 1) + 1, down)
    columns = slice(left, left + right * (wide - 1) + 1, right)
    return x[:, rows, columns]
