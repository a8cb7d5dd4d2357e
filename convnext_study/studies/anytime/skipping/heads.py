"""Heads that read their maps at computed positions only, instead of resizing them whole.

Where logits are merged, what a head would give at skipped positions is never seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.segment import SegmentMask, SizedMask
from convnext_study.studies.anytime.networks.heads import FlexHead, upsample
from convnext_study.studies.anytime.skipping.choice import Skipper
from convnext_study.studies.anytime.skipping.indices import coordinates, is_small, positions
from convnext_study.studies.anytime.skipping.methods import as_matrix, from_rows

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
    size = (maps[0].shape[-2], maps[0].shape[-1])
    mask = segment.at(size)
    assert mask is not None  # noqa: S101  the network asks only where something is masked
    if is_small(mask):
        return head(torch.cat([upsample(one, size) for one in maps], dim=1))  # type: ignore[no-any-return]
    if isinstance(head, FlexHead):
        return _flex(head, maps, segment, size)
    x = torch.cat([_rows_of(one, *coordinates(positions(mask), mask), mask) for one in maps], dim=1)
    assert isinstance(head, nn.Sequential)  # noqa: S101  can_skip() asked
    for layer in head:
        if isinstance(layer, MaskedConv2d):
            x = F.linear(x, layer.weight.flatten(1), layer.shifted_bias())
        else:
            x = layer(x)
    n, _, h, w = mask.active.shape
    logits = x.new_zeros(n * h * w, x.shape[1]).index_copy_(0, positions(mask), x)
    return logits.view(n, h, w, -1).permute(0, 3, 1, 2)


def _flex(
    head: FlexHead, maps: Sequence[Tensor], segment: SegmentMask, size: tuple[int, int]
) -> Tensor:
    """The first pooling and convolution from single positions, the rest as it is."""
    conv = head.convs[0]
    halved = segment.at((-(-size[0] // 2), -(-size[1] // 2)))
    whole = segment.at(size)
    assert whole is not None and halved is not None  # noqa: S101
    even = size[0] % 2 == 0 and size[1] % 2 == 0
    skipper = conv.skipper if isinstance(conv, MaskedConv2d) else None
    if not even or halved.share > FEW or not isinstance(skipper, Skipper) or skipper.plan is None:
        return head(torch.cat([upsample(one, size) for one in maps], dim=1))  # type: ignore[no-any-return]
    assert isinstance(conv, MaskedConv2d)  # noqa: S101
    if halved.share == 0:
        return head.after_convolution(skipper(conv, conv.weight, halved), size)
    image, row, column = coordinates(positions(halved), halved)
    pooled = [
        sum(
            (
                _rows_of(one, image, 2 * row + down, 2 * column + right, whole)
                for down in (0, 1)
                for right in (0, 1)
            ),
            start=one.new_zeros(()),
        )
        / 4
        for one in maps
    ]
    first = from_rows(conv, torch.cat(pooled, dim=1), halved, skipper.plan)
    return head.after_convolution(first, size)


def _rows_of(one: Tensor, image: Tensor, row: Tensor, column: Tensor, mask: SizedMask) -> Tensor:
    """(places, C) of a map upsampled bilinearly to the mask's size."""
    h, w = mask.active.shape[-2:]
    small_h, small_w = one.shape[-2:]
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
