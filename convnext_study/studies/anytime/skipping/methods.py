"""Three ways to a masked convolution: whole, by tiles, by single positions. Equal but for rounding.

Maps are taken and given in channels-last layout, in which a position is a row of memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.fill import radial_kernel, reach_of
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.skipping import indices
from convnext_study.studies.anytime.skipping.indices import Geometry


class Plan(nn.Module):
    """What is known of a convolution before it runs. It goes with the convolution to a device.

    Args:
        geometry: how its output lies on its input.
        radius: how far its fill matters in its own precision, in positions.
        kernel: of the fill as far as that, a square.

    ``taps`` are the same without the middle, row by row; ``rest`` is 1 less their sum.
    """

    kernel: Tensor
    taps: Tensor

    def __init__(self, geometry: Geometry, radius: int, kernel: Tensor) -> None:
        super().__init__()
        self.geometry, self.radius = geometry, radius
        flat = kernel.flatten()
        taps = torch.cat([flat[: len(flat) // 2], flat[len(flat) // 2 + 1 :]])
        self.rest = 1 - float(taps.sum())
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("taps", taps, persistent=False)

    @classmethod
    def of(cls, conv: MaskedConv2d) -> Plan | None:
        """That of a convolution as its weights are now; None where it cannot be done in parts."""
        geometry = Geometry.of(conv)
        if geometry is None:
            return None
        scale = conv.fill_lambda.detach()
        radius = reach_of(float(scale), torch.finfo(conv.weight.dtype).eps)
        kernel = radial_kernel(scale)
        middle = len(kernel) // 2
        near = slice(middle - radius, middle + radius + 1)
        return cls(geometry, radius, kernel[near, near].contiguous())


Method = Callable[[MaskedConv2d, Tensor, SizedMask, Plan], Tensor]

MOST_BORDER = 0.25  # share of the map; where more would be filled, all of it is; ours


def as_matrix(x: Tensor) -> Tensor:
    """A map (N, C, h, w) as (N * h * w, C), a row for each position."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def whole(conv: MaskedConv2d, x: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """Everything is computed, and what the mask skips dropped."""
    if mask.share == 1:
        return _conv(conv, x, conv.shifted_bias())
    fill = _Fill(conv, mask, plan)
    y = _conv(conv, x, fill.bias)
    if not fill.sparse:
        return fill.everywhere(y * mask.active)
    y = y.contiguous(memory_format=torch.channels_last)
    out = as_matrix(y)
    out[indices.skipped(mask)] = fill.start
    return fill.complete(out)


def nothing(conv: MaskedConv2d, mask: SizedMask) -> Tensor:
    """No position is computed: the shift alone."""
    n, _, h, w = mask.active.shape
    shift = conv.weight.new_zeros(1) if conv.shift is None else conv.shift
    rows = shift.expand(n * h * w, conv.out_channels).clone(memory_format=torch.contiguous_format)
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)


def by_tiles(conv: MaskedConv2d, x: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """Tiles with a computed position are gathered, with a border, and convolved as a batch."""
    fill = _Fill(conv, mask, plan)
    batch = indices.tiles(mask, (x.shape[-2], x.shape[-1]), plan.geometry)
    tiles = batch.reads.gather(as_matrix(x)).view(batch.count, batch.side, batch.side, -1)
    y = _conv(conv, tiles.permute(0, 3, 1, 2), fill.bias, padding=0)
    return fill.around(as_matrix(y).index_select(0, batch.inside), batch.rows)


def by_positions(conv: MaskedConv2d, x: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """The window of every computed position is gathered, and one matrix product does the rest."""
    matrix = as_matrix(x)
    rows = indices.positions(mask)
    if plan.geometry == Geometry(1, 1, 0, 1):
        windows = matrix.index_select(0, rows)
    else:
        reads = indices.window_reads(mask, (x.shape[-2], x.shape[-1]), plan.geometry)
        windows = reads.gather(matrix).view(len(rows), -1)
    return from_rows(conv, windows, mask, plan)


def from_rows(conv: MaskedConv2d, windows: Tensor, mask: SizedMask, plan: Plan) -> Tensor:
    """The map that a convolution makes of the windows (positions, kernel * kernel * C)."""
    fill = _Fill(conv, mask, plan)
    rows = indices.positions(mask)
    taps = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    if conv.groups > 1:  # depthwise: a channel reads itself only
        y = (windows.view(len(rows), -1, conv.out_channels) * taps.view(-1, conv.out_channels)).sum(
            1
        )
        y = y if fill.bias is None else y + fill.bias
    else:
        y = windows @ taps if fill.bias is None else torch.addmm(fill.bias, windows, taps)
    return fill.around(y, rows)


METHODS: dict[str, Method] = {"whole": whole, "tiles": by_tiles, "positions": by_positions}


def can_use(method: str, conv: MaskedConv2d) -> bool:
    """Whether a method computes such a convolution."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    return method != "positions" or conv.groups == 1 or depthwise


class _Fill:
    """What stands at skipped positions, and what has to be computed elsewhere to get it.

    Where few positions are near a computed one, these alone are filled, and the shift is in the
    map from the start; where many are, the whole map is filled and then shifted.
    """

    def __init__(self, conv: MaskedConv2d, mask: SizedMask, plan: Plan) -> None:
        self.conv, self.mask, self.plan = conv, mask, plan
        self.sparse = not indices.is_small(mask)
        if self.sparse:
            self.border = indices.border(mask, plan.radius)
            self.sparse = len(self.border.rows) <= MOST_BORDER * mask.active.numel()
        self.bias = conv.shifted_bias() if self.sparse else conv.bias
        shift = conv.shift if self.sparse else None
        self.start = conv.weight.new_zeros(()) if shift is None else shift

    def around(self, y: Tensor, rows: Tensor) -> Tensor:
        """The map (N, C, h, w) that has the computed rows."""
        size = (self.mask.active.numel(), y.shape[1])
        out = self.start.expand(size).clone(memory_format=torch.contiguous_format)
        return self.complete(out.index_copy_(0, rows, y))

    def complete(self, out: Tensor) -> Tensor:
        """The map of a matrix that holds computed rows, and ``start`` in all others."""
        n, _, h, w = self.mask.active.shape
        maps = out.view(n, h, w, -1).permute(0, 3, 1, 2)
        if not self.sparse:
            return self.everywhere(maps)
        if len(self.border.rows):
            taps = self.plan.taps
            values = self.border.around.gather(out, self.start).view(len(taps), -1)
            # Skipped neighbours hold the shift alone, which the fill does not count.
            means = (taps @ values).view(-1, out.shape[1]) + self.start * self.plan.rest
            out.index_copy_(0, self.border.rows, means)
        return maps

    def everywhere(self, computed: Tensor) -> Tensor:
        """The filled map of one that is 0 at skipped positions."""
        channels = computed.shape[1]
        square = self.plan.kernel.expand(channels, 1, -1, -1)
        filled = F.conv2d(computed, square, padding=self.plan.radius, groups=channels)
        # A product and a sum are faster than torch.where with a mask for all channels.
        maps = torch.addcmul(computed, filled, indices.inverse(self.mask, computed.dtype))
        return maps if self.conv.shift is None else maps.add_(self.conv.shift.view(-1, 1, 1))


def _conv(conv: MaskedConv2d, x: Tensor, bias: Tensor | None, padding: int | None = None) -> Tensor:
    around = conv.padding if padding is None else padding
    return F.conv2d(x, conv.weight, bias, conv.stride, around, conv.dilation, conv.groups)
