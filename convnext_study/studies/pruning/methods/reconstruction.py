"""Channels chosen by their contributions to the next layer, whose weights are then refitted.

Both methods go layer by layer, front to back, and sample a layer at random positions. ThiNet (Luo
et al., ICCV 2017) greedily removes the channels that change the next layer's outputs least, and
scales the others by least squares. Regression (He et al., ICCV 2017) keeps those with a nonzero
coefficient in a LASSO of the unpruned layer's outputs on the channels' contributions, and refits
the weights.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.studies.pruning.blocks import SelectedConv2d
from convnext_study.studies.pruning.channel_groups import Group, PruningError

POSITIONS = 10  # per image
CHUNK = 1024  # patches at a time, to limit memory
MOST = 20_000  # outputs for the LASSO
SLACK = 1.1  # channels kept, at most, over the target
STEPS = 40  # of the bisection

Layer: TypeAlias = tuple[Group, int]  # with the number of channels to keep
Reader: TypeAlias = nn.Conv2d | nn.Linear  # a linear layer is a 1x1 convolution, channels last


def prune_by_thinet(
    net: nn.Module, layers: Sequence[Layer], images: Sequence[Tensor], *, seed: int = 0
) -> dict[str, list[int]]:
    """Choose channels of the layers, in the network's order, and refit their readers in place.

    ``images`` are batches (N, C, H, W); the paper keeps half of the channels and takes 10 images
    per class. ``seed`` draws positions and filters. Raises PruningError for a layer whose channels
    are not read by exactly one layer.
    """
    keep_idx = {}
    for group, count in layers:
        x = contributions(net, group, images, fold_in(seed, "thinet", group.name))
        chosen = keep_idx[group.name] = choose_greedily(x, count)
        factors = _least_squares(x[:, chosen], x.sum(1, keepdim=True))
        weight = kernels(reader_of(net, group))
        _refit(weight, chosen, weight[:, chosen] * factors.to(weight).view(1, -1, 1, 1))
    return keep_idx


def prune_by_regression(
    net: nn.Module, layers: Sequence[Layer], images: Sequence[Tensor], *, seed: int = 0
) -> dict[str, list[int]]:
    """As `prune_by_thinet`, but the readers of kept channels get new weights.

    Up to 1.1 times the target stays; the paper takes 500 images.
    """
    whole, keep_idx = copy.deepcopy(net), {}
    for group, target in layers:
        draw = generator(fold_in(seed, "regression", group.name))
        reader = reader_of(net, group)
        pruned = sample(net, reader, images, draw)
        patches, weight = pruned.patches.double(), kernels(reader)
        outputs = sample(whole, reader_of(whole, group), images, pruned.places).outputs.double()
        # A random subset of patches and filters, if there are more than the LASSO needs.
        pairs = torch.randperm(outputs.numel(), generator=draw)[:MOST]
        rows, filters = pairs // outputs.shape[1], pairs % outputs.shape[1]
        parts = channel_parts(patches[rows], weight, filters)
        chosen = keep_idx[group.name] = choose_by_lasso(parts, outputs.flatten()[pairs], target)
        fitted = _least_squares(patches[:, chosen].flatten(1), outputs)
        _refit(weight, chosen, fitted.T.reshape(len(weight), len(chosen), *weight.shape[2:]))
    return keep_idx


def _refit(weight: Tensor, chosen: Sequence[int], columns: Tensor) -> None:
    """Let a layer read only these channels, with these weights, in place."""
    columns = columns.to(weight)
    weight.zero_()
    weight[:, chosen] = columns


def contributions(net: nn.Module, group: Group, images: Sequence[Tensor], seed: int) -> Tensor:
    """Contributions of channels to random outputs of the next layer: (samples, channels), double.

    A sample is one random filter of that layer at one random position.
    """
    reader, draw = reader_of(net, group), generator(seed)
    patches = sample(net, reader, images, draw).patches
    weight = kernels(reader)
    filters = torch.randint(len(weight), (len(patches),), generator=draw)
    return channel_parts(patches, weight, filters)


def choose_greedily(x: Tensor, count: int) -> list[int]:
    """The ``count`` columns to keep, ascending, when the others are removed greedily.

    Each step removes the column, of equal ones the earlier, for which the sum of all removed
    columns has the smallest norm.
    """
    kept, removed = list(range(x.shape[1])), x.new_zeros(x.shape[0])
    sizes = x.square().sum(0)
    while len(kept) > count:
        # |removed + column|^2 without |removed|^2, which is the same for all.
        costs = sizes[kept] + 2 * (removed @ x[:, kept])
        column = kept.pop(int(costs.argmin()))
        removed = removed + x[:, column]
    return kept


def choose_by_lasso(parts: Tensor, outputs: Tensor, target: int) -> list[int]:
    """The columns with a nonzero coefficient in the LASSO of ``outputs`` on ``parts``, ascending.

    Bisection finds a penalty that keeps ``target`` to 1.1 times as many; if none does, the
    ``target`` largest coefficients at the last penalty stay.
    """
    if target >= parts.shape[1]:
        return list(range(parts.shape[1]))
    x, y = parts.numpy(), outputs.numpy()
    # Above this penalty all coefficients are zero.
    low, high = 0.0, float(np.abs(x.T @ y).max()) / len(y)
    coefficients = np.zeros(x.shape[1])
    for _ in range(STEPS):
        middle = (low + high) / 2
        solution = _lasso(x, y, middle)
        count = int(np.count_nonzero(solution))
        if count >= target:
            low, coefficients = middle, solution
            if count <= SLACK * target:
                return np.flatnonzero(solution).tolist()
        else:
            high = middle
    order = np.argsort(-np.abs(coefficients), kind="stable")
    return sorted(order[:target].tolist())


def _lasso(x: Any, y: Any, penalty: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the zeros are known earlier
        return Lasso(alpha=penalty, fit_intercept=False, max_iter=1000).fit(x, y).coef_


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.lstsq(x, y, driver="gelsd").solution
    return solved


class Sample(NamedTuple):
    """Inputs and outputs of a layer at random positions of all images.

    ``places`` are rows and columns of output positions, (N, positions, 2) per batch; ``patches``
    (all positions, channels, k, k); ``outputs`` (all positions, filters), without the bias.
    """

    places: list[Tensor]
    patches: Tensor
    outputs: Tensor


@torch.no_grad()
def sample(
    net: nn.Module,
    reader: Reader,
    images: Iterable[Tensor],
    where: torch.Generator | list[Tensor],
) -> Sample:
    """Run the network, which is in evaluation mode, on the images and sample one of its layers.

    ``where`` draws `POSITIONS` per image, or is the places of another sample.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    places, patches, outputs = [], [], []
    hook = reader.register_forward_hook(lambda _, args, y: calls.append((args[0], y)))
    bias = 0 if reader.bias is None else reader.bias.view(1, -1, 1, 1)
    try:
        for batch, image in enumerate(images):
            net(image)
            x, y = (_channels_first(reader, maps) for maps in calls.pop())
            if isinstance(where, torch.Generator):
                size = (len(y), POSITIONS)
                drawn = [torch.randint(side, size, generator=where) for side in y.shape[2:]]
                places.append(torch.stack(drawn, dim=-1))
            else:
                places.append(where[batch])
            rows, columns = places[-1].unbind(-1)
            outputs.append((y - bias)[torch.arange(len(y))[:, None], :, rows, columns])
            patches.append(_patches(reader, x, rows, columns))
    finally:
        hook.remove()
    return Sample(places, torch.cat(patches), torch.cat(outputs).flatten(0, 1))


def _patches(reader: Reader, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The layer's inputs for these output positions, (N, positions) each."""
    size, stride, dilation, padding = kernels(reader).shape[2:], (1, 1), (1, 1), [0] * 4
    if isinstance(reader, nn.Conv2d):
        stride, dilation = reader.stride, reader.dilation  # type: ignore[assignment]
        padding = reader._reversed_padding_repeated_twice  # in the form of F.pad
        if isinstance(reader, SelectedConv2d):  # it reads only some channels of a stream
            x = x.index_select(1, reader.keep_idx)
    at_rows = rows[..., None] * stride[0] + dilation[0] * torch.arange(size[0])
    at_columns = columns[..., None] * stride[1] + dilation[1] * torch.arange(size[1])
    image = torch.arange(len(x))[:, None, None, None]
    padded = F.pad(x, padding)
    read = padded[image, :, at_rows[..., :, None], at_columns[..., None, :]]
    return read.flatten(0, 1).permute(0, 3, 1, 2).contiguous()


def _channels_first(reader: Reader, x: Tensor) -> Tensor:
    """A map (N, C, H, W); a linear layer's (N, ..., C) is reshaped to that."""
    if isinstance(reader, nn.Conv2d):
        return x
    return x.flatten(1, -2).transpose(1, 2).unsqueeze(-1) if x.ndim > 2 else x[:, :, None, None]


def reader_of(net: nn.Module, group: Group) -> Reader:
    """The layer that reads the group's channels.

    Raises PruningError if that is not exactly one convolution or linear layer, or if it reads a
    flattened map.
    """
    reader = None
    if group.is_read_once and group.consumers[0][1] == 1:
        reader = net.get_submodule(group.consumers[0][0])
    if isinstance(reader, nn.Linear) or (isinstance(reader, nn.Conv2d) and reader.groups == 1):
        return reader
    raise PruningError(f"{group.name}: its channels are not read by exactly one convolution")


def kernels(reader: Reader) -> Tensor:
    """A view of its weights, (filters, channels, k, k)."""
    weight = reader.weight.detach()
    return weight[:, :, None, None] if isinstance(reader, nn.Linear) else weight


def channel_parts(patches: Tensor, weight: Tensor, filters: Tensor) -> Tensor:
    """Each channel's contribution to one output per patch: (patches, channels), double.

    ``weight`` is the layer's; ``filters`` (patches,) are the indices of the outputs.
    """
    chunks = zip(torch.split(patches, CHUNK), torch.split(filters, CHUNK), strict=True)
    return torch.cat([(weight[index].double() * x.double()).sum((2, 3)) for x, index in chunks])
