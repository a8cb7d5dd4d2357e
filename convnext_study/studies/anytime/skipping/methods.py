"""Three ways to a masked convolution: whole, by tiles, by single positions. Equal but for rounding.

Maps are taken and given in channels-last layout, in which a position is a row of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.fill import fill_skipped, radial_kernel
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.skipping import indices
from convnext_study.studies.anytime.skipping.indices import Geometry


@dataclass(frozen=True)
class Plan:
    """What is known of a convolution before it runs.

    Args:
        geometry: how its output lies on its input.
        radius: how far its fill matters in its own precision, in positions.
    """

    geometry: Geometry
    radius: int


Method = Callable[[MaskedConv2d, Tensor, SizedMask, Plan], Tensor]

MOST_BORDER = 0.25  # share of the map; where more of it is filled, all of it is, which is faster


def as_matrix(x: Tensor) -> Tensor:
    """A map (N, C, h, w) as (N * h * w, C), a row for each position."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def whole(conv: MaskedConv2d, x: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """Everything is computed, and what the mask skips dropped."""
    y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    if mask.share == 1:
        return y if conv.shift is None else y + conv.shift.view(-1, 1, 1)
    rows = indices.positions(mask)
    return _with_fill(conv, as_matrix(y).index_select(0, rows), rows, mask, plan)


def nothing(conv: MaskedConv2d, mask: SizedMask) -> Tensor:
    """No position is computed: the shift alone."""
    n, _, h, w = mask.active.shape
    shift = conv.weight.new_zeros(1) if conv.shift is None else conv.shift
    rows = shift.expand(n * h * w, conv.out_channels).clone(memory_format=torch.contiguous_format)
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)


def by_tiles(conv: MaskedConv2d, x: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """Tiles with a computed position are gathered, with a border, and convolved as a batch."""
    batch = indices.tiles(mask, (x.shape[-2], x.shape[-1]), plan.geometry)
    tiles = batch.reads.gather(as_matrix(x)).view(batch.count, batch.side, batch.side, -1)
    y = F.conv2d(
        tiles.permute(0, 3, 1, 2),
        conv.weight,
        conv.bias,
        conv.stride,
        0,
        conv.dilation,
        conv.groups,
    )
    return _with_fill(conv, as_matrix(y).index_select(0, batch.inside), batch.rows, mask, plan)


def by_positions(conv: MaskedConv2d, x: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """The window of every computed position is gathered, and one matrix product does the rest."""
    matrix = as_matrix(x)
    rows = indices.positions(mask)
    if plan.geometry == Geometry(1, 1, 0, 1):
        windows = matrix.index_select(0, rows)
    else:
        reads = indices.window_reads(mask, (x.shape[-2], x.shape[-1]), plan.geometry)
        windows = reads.gather(matrix).view(len(rows), -1)
    taps = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    if conv.groups > 1:  # depthwise: a channel reads itself only
        y = (windows.view(len(rows), -1, conv.out_channels) * taps.view(-1, conv.out_channels)).sum(
            1
        )
        y = y if conv.bias is None else y + conv.bias
    else:
        y = windows @ taps if conv.bias is None else torch.addmm(conv.bias, windows, taps)
    return _with_fill(conv, y, rows, mask, plan)


METHODS: dict[str, Method] = {"whole": whole, "tiles": by_tiles, "positions": by_positions}


def can_use(method: str, conv: MaskedConv2d) -> bool:
    """Whether a method computes such a convolution."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    return method != "positions" or conv.groups == 1 or depthwise


def _with_fill(conv: MaskedConv2d, y: Tensor, rows: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """The map (N, C, h, w) of computed rows, filled elsewhere and shifted everywhere."""
    n, _, h, w = mask.active.shape
    channels = y.shape[1]
    scale = conv.fill_lambda
    radius = plan.radius
    shift = y.new_zeros(()) if conv.shift is None else conv.shift
    filled, around = indices.border(mask, radius)
    sparse = len(filled) <= MOST_BORDER * n * h * w
    start = shift if sparse else y.new_zeros(())
    out = start.expand(n * h * w, channels).clone(memory_format=torch.contiguous_format)
    out.index_copy_(0, rows, y + start)
    if not sparse:
        maps = out.view(n, h, w, channels).permute(0, 3, 1, 2)
        maps = torch.where(mask.active, maps, fill_skipped(maps, scale, radius))
        return maps if conv.shift is None else maps + shift.view(-1, 1, 1)
    if len(filled):
        kernel = radial_kernel(scale)
        middle = len(kernel) // 2
        near = slice(middle - radius, middle + radius + 1)
        taps = kernel[near, near].flatten()
        neighbours = around.gather(out, start).view(len(filled), len(taps), channels)
        # Skipped neighbours hold the shift alone, which the fill does not count.
        means = (taps @ neighbours) + start * (1 - taps.sum())
        out.index_copy_(0, filled, means)
    return out.view(n, h, w, channels).permute(0, 3, 1, 2)
