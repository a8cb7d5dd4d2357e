"""ThiNet (Luo et al., ICCV 2017): channels whose loss the next layer notices least.

Layer by layer, front to back: sums of what each channel adds to the next layer's outputs are
sampled; channels are removed greedily; what is left is scaled by least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.studies.pruning.apply import ImageSize, mask
from convnext_study.studies.pruning.groups import Group, check_widths
from convnext_study.studies.pruning.methods.samples import (
    added,
    draw_places,
    kernels,
    patches,
    reader_of,
)

POSITIONS = 10  # of each image


def prune(
    net: nn.Module,
    groups: Sequence[Group],
    widths: Mapping[str, int],
    images: Sequence[Tensor],
    image_size: ImageSize,
    *,
    seed: int = 0,
    after_layer: Callable[[nn.Module], None] = lambda net: None,
) -> dict[str, list[int]]:
    """Mask the layers named in ``widths``, in place, and say which channels stay.

    Args:
        net: a trained network; its layers that read kept channels are scaled.
        groups: its channels, as `apply.groups_of` finds them, in the network's order.
        widths: how many channels of each layer stay; the paper keeps half.
        images: batches (N, channels, height, width); the paper takes 10 images of each class.
        image_size: of the images.
        seed: of the sampled positions and filters.
        after_layer: called with the network after each layer, to fine-tune it.

    Raises:
        PruningError: a layer that is unknown or would be empty, or whose channels no single layer
            reads.
    """
    kept = {}
    for group, count in check_widths(widths, groups):
        x = contributions(net, group, images, fold_in(seed, "thinet", group.name))
        kept[group.name] = choose(x, count)
        mask(net, {group.name: kept[group.name]}, image_size)
        factors = least_squares(x[:, kept[group.name]], x.sum(1))
        with torch.no_grad():
            weight = kernels(reader_of(net, group))
            weight[:, kept[group.name]] *= factors.to(weight).view(1, -1, 1, 1)
        after_layer(net)
    return kept


def contributions(net: nn.Module, group: Group, images: Sequence[Tensor], seed: int) -> Tensor:
    """What each channel adds to random outputs of the next layer: (samples, channels), double.

    A sample is one random filter of it at one random position.
    """
    reader, draw = reader_of(net, group), generator(seed)
    places = draw_places(net, reader, images, POSITIONS, draw)
    read = patches(net, reader, images, places)
    weight = kernels(reader)
    filters = torch.randint(len(weight), (len(read),), generator=draw)
    return added(read, weight, filters)


def choose(x: Tensor, count: int) -> list[int]:
    """The columns that stay, ascending, when others are removed greedily.

    Each time the one goes with which the sum of all removed columns has the smallest norm; of
    equal ones, the earlier.
    """
    left, removed = list(range(x.shape[1])), x.new_zeros(x.shape[0])
    sizes = x.square().sum(0)
    while len(left) > count:
        # |removed + column|^2, but for |removed|^2, which is the same for all.
        costs = sizes[left] + 2 * (removed @ x[:, left])
        gone = left.pop(int(costs.argmin()))
        removed = removed + x[:, gone]
    return left


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """The factors of the columns of ``x`` whose sum is nearest to ``y``."""
    solved: Tensor = torch.linalg.lstsq(x, y.unsqueeze(1), driver="gelsd").solution
    return solved.squeeze(1)
