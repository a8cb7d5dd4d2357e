"""The authors' original head at computed positions only: its convolutions are all 1x1.

Where logits are merged, what it would give at other positions is never seen: nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.networks.heads import upsample
from convnext_study.studies.anytime.skipping.indices import positions
from convnext_study.studies.anytime.skipping.methods import as_matrix

FEW = 0.3  # share up to which single positions are upsampled faster than the map (measured)


def can_use_positions(head: nn.Module) -> bool:
    """Whether a head looks at one position at a time, its BatchNorms folded."""
    return isinstance(head, nn.Sequential) and all(
        isinstance(layer, nn.ReLU | nn.Identity)
        or (isinstance(layer, MaskedConv2d) and layer.kernel_size == (1, 1))
        for layer in head
    )


def head_at_positions(head: nn.Module, maps: Sequence[Tensor], mask: SizedMask) -> Tensor:
    """Logits (N, classes, h, w) of maps of several sizes, the largest first; 0 where skipped."""
    assert isinstance(head, nn.Sequential)  # noqa: S101  can_use_positions() asked
    rows = positions(mask)
    n, _, h, w = mask.active.shape
    x = torch.cat([_rows_of(one, rows, (h, w), mask) for one in maps], dim=1)
    for layer in head:
        if isinstance(layer, MaskedConv2d):
            x = F.linear(x, layer.weight.flatten(1), layer.bias)
            x = x if layer.shift is None else x + layer.shift
        else:
            x = layer(x)
    logits = x.new_zeros(n * h * w, x.shape[1]).index_copy_(0, rows, x)
    return logits.view(n, h, w, -1).permute(0, 3, 1, 2)


def _rows_of(one: Tensor, rows: Tensor, size: tuple[int, int], mask: SizedMask) -> Tensor:
    """(positions, C) of a map upsampled bilinearly to ``size``."""
    if (one.shape[-2], one.shape[-1]) == size or mask.share > FEW:
        return as_matrix(upsample(one, size)).index_select(0, rows)
    h, w = size
    matrix, image = as_matrix(one), rows // (h * w)
    small_h, small_w = one.shape[-2:]
    found = None
    for row, row_weight in _ends(rows // w % h, small_h, h, one.dtype):
        for column, column_weight in _ends(rows % w, small_w, w, one.dtype):
            near = matrix.index_select(0, (image * small_h + row) * small_w + column)
            part = near * (row_weight * column_weight)[:, None]
            found = part if found is None else found + part
    assert found is not None  # noqa: S101
    return found


def _ends(
    at: Tensor, small: int, large: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both neighbours on the small side of positions on the large one, and their weights."""
    source = ((at.to(dtype) + 0.5) * (small / large) - 0.5).clamp(min=0)
    first = source.long()
    weight = source - first
    return (first, 1 - weight), ((first + 1).clamp(max=small - 1), weight)
