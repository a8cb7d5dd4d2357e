"""Heads that read their maps at computed positions only, instead of resizing them whole.

Where logits are merged, what a head would give at skipped positions is never seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.backbones import FlexHead, upsample
from convnext_study.studies.anytime.masks import MaskedConv2d, ResizedMask, SegmentMask
from convnext_study.studies.anytime.skipping.indices import (
    as_matrix,
    coordinates,
    is_small,
    positions,
    size_of,
)
from convnext_study.studies.anytime.skipping.methods import (
    Fill,
    MethodSkipper,
    as_maps,
    from_windows,
)

FEW = 0.3  # share up to which single positions are upsampled instead of the map; ours


def can_skip(head: nn.Module) -> bool:
    """Whether a head is of the two kinds that are known here, its BatchNorms folded."""
    if isinstance(head, FlexHead):
        return True
    return isinstance(head, nn.Sequential) and all(
        isinstance(layer, nn.ReLU | nn.Identity)
        or (isinstance(layer, MaskedConv2d) and layer.kernel_size == (1, 1))
        for layer in head
    )


def skipping_head(head: nn.Module, maps: Sequence[Tensor], segment: SegmentMask) -> Tensor:
    """Logits (N, classes, h, w) of maps of several sizes, the largest first.

    They are the head's wherever the mask is true, and anything elsewhere.
    """
    size = size_of(maps[0])
    mask = segment.at(size)
    assert mask is not None  # noqa: S101  the network calls it only where something is masked
    logits = None
    if not is_small(mask):
        logits = (
            _flex(head, maps, segment) if isinstance(head, FlexHead) else _plain(head, maps, mask)
        )
    if logits is None:
        logits = head(torch.cat([upsample(one, size) for one in maps], dim=1))
    return logits


def _plain(head: nn.Module, maps: Sequence[Tensor], mask: ResizedMask) -> Tensor:
    """Layer by layer on the computed positions."""
    places = coordinates(positions(mask), mask)
    x = torch.cat([_rows_of(one, *places, mask) for one in maps], dim=1)
    for layer in head.children():
        if isinstance(layer, MaskedConv2d):
            x = F.linear(x, layer.weight.flatten(1), layer.shifted_bias())
        else:
            x = layer(x)
    everywhere = x.new_zeros(mask.active.numel(), x.shape[1])
    return as_maps(everywhere.index_copy_(0, positions(mask), x), mask)


def _flex(head: FlexHead, maps: Sequence[Tensor], segment: SegmentMask) -> Tensor | None:
    """The first pooling and convolution from single positions, the rest as it is; None where that
    does not pay, or where a side is odd."""
    height, width = size = size_of(maps[0])
    conv, whole = head.convs[0], segment.at(size)
    halved = segment.at((-(-height // 2), -(-width // 2)))
    assert isinstance(conv, MaskedConv2d) and isinstance(conv.skipper, MethodSkipper)  # noqa: S101
    assert whole is not None and halved is not None  # noqa: S101
    if height % 2 or width % 2 or halved.share > FEW:
        return None
    if halved.share == 0:
        return head.after_convolution(conv.skipper(conv, conv.weight, halved), size)
    image, row, column = coordinates(positions(halved), halved)
    pooled = []
    for one in maps:
        total = one.new_zeros(())
        for down in (0, 1):
            for right in (0, 1):
                total = total + _rows_of(one, image, 2 * row + down, 2 * column + right, whole)
        pooled.append(total / 4)
    first = from_windows(Fill(conv, halved, conv.skipper), torch.cat(pooled, dim=1))
    return head.after_convolution(first, size)


def _rows_of(one: Tensor, image: Tensor, row: Tensor, column: Tensor, mask: ResizedMask) -> Tensor:
    """(places, C) of a map upsampled bilinearly to the mask's size."""
    (h, w), (small_h, small_w) = size_of(mask.active), size_of(one)
    if (small_h, small_w) == (h, w) or mask.share > FEW:
        return as_matrix(upsample(one, (h, w))).index_select(0, (image * h + row) * w + column)
    matrix = as_matrix(one)
    found = one.new_zeros(())
    for near_row, row_weight in _ends(row, small_h, h, one.dtype):
        for near_column, column_weight in _ends(column, small_w, w, one.dtype):
            near = matrix.index_select(0, (image * small_h + near_row) * small_w + near_column)
            found = found + near * (row_weight * column_weight)[:, None]
    return found


def _ends(
    at: Tensor, small: int, large: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both neighbours on the small side of positions on the large one, and their weights."""
    source = ((at.to(dtype) + 0.5) * (small / large) - 0.5).clamp(min=0)
    first = source.long()
    weight = source - first
    return (first, 1 - weight), ((first + 1).clamp(max=small - 1), weight)
