"""Two ways to a masked convolution: whole, and by single positions. Equal but for rounding.

Maps are taken and given in channels-last layout, in which a position is a row of memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.masks import MaskedConv2d, ResizedMask, radial_kernel, reach_of
from convnext_study.studies.anytime.skipping import indices
from convnext_study.studies.anytime.skipping.indices import Geometry, as_matrix, size_of

MOST_BORDER = 0.25  # share of the map; where more would be filled, all of it is; ours
UNMEASURED = 0.5  # the share up to which single positions are used where nothing was measured


class LatencyModel(NamedTuple):
    """Milliseconds of a method: ``fixed + per_share * share`` of computed positions."""

    fixed: float
    per_share: float

    def at(self, share: float) -> float:
        """Milliseconds at a share from 0 to 1."""
        return self.fixed + self.per_share * share


# Per kind of layer (`layer_key`), what each method costs, on the machine where it was measured.
Table: TypeAlias = Mapping[str, Mapping[str, LatencyModel]]


class MethodSkipper(nn.Module):
    """Computes one convolution by the method that is best for the mask at hand.

    It goes with the convolution to a device. ``kernel`` is the fill's as far as it matters in the
    convolution's precision, ``radius`` positions; ``taps`` are the same without the middle, row by
    row; ``rest`` is 1 less their sum. ``table`` is empty where nothing was measured.
    """

    kernel: Tensor
    taps: Tensor

    def __init__(self, conv: MaskedConv2d) -> None:
        super().__init__()
        geometry, scale = Geometry.of(conv), conv.fill_lambda.detach()
        assert geometry is not None  # noqa: S101  the caller checks
        self.geometry = geometry
        self.table: Table = {}
        self.radius = reach_of(float(scale), torch.finfo(conv.weight.dtype).eps)
        kernel = radial_kernel(scale)
        middle = len(kernel) // 2
        near = slice(middle - self.radius, middle + self.radius + 1)
        kernel = kernel[near, near].contiguous()
        flat = kernel.flatten()
        taps = torch.cat([flat[: len(flat) // 2], flat[len(flat) // 2 + 1 :]])
        self.rest = 1 - float(taps.sum())
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, conv: MaskedConv2d, x: Tensor, mask: ResizedMask) -> Tensor:
        """The convolution's output, equal to the masked dense one but for rounding."""
        if mask.share == 0:  # the shift alone
            start = conv.weight.new_zeros(()) if conv.shift is None else conv.shift
            return as_maps(_filled_with(start, mask, conv.out_channels), mask)
        if mask.share == 1:
            return _conv(conv, x, conv.shifted_bias())
        return METHODS[self.method(conv, x, mask)](Fill(conv, mask, self), x)

    def method(self, conv: MaskedConv2d, x: Tensor, mask: ResizedMask) -> str:
        """The name in `METHODS` of the one that should take the least time."""
        if indices.is_small(mask) or not has_positions(conv):
            return "whole"
        if (measured := self.table.get(layer_key(conv, x))) is not None:
            return min(measured, key=lambda name: measured[name].at(mask.share))
        return "positions" if mask.share <= UNMEASURED else "whole"


def layer_key(conv: MaskedConv2d, x: Tensor) -> str:
    """What decides how fast a layer is: kernel, stride, groups, channels, batch and map."""
    n, _, h, w = x.shape
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    layer = f"{kernel}x{kernel}/{stride} g{conv.groups} {conv.in_channels}-{conv.out_channels}"
    return f"{layer} on {n}x{h}x{w}"


def has_positions(conv: MaskedConv2d) -> bool:
    """Whether single positions of such a convolution can be computed."""
    return conv.groups == 1 or conv.groups == conv.in_channels == conv.out_channels


def as_maps(matrix: Tensor, mask: ResizedMask) -> Tensor:
    """The inverse of `as_matrix`, for maps of the mask's size."""
    n, _, h, w = mask.active.shape
    return matrix.view(n, h, w, -1).permute(0, 3, 1, 2)


class Fill:
    """What stands at skipped positions, and what has to be computed elsewhere to get it.

    Where few positions are near a computed one, these alone are filled, and the shift is in the
    map from the start; where many are, the whole map is filled and then shifted.
    """

    def __init__(self, conv: MaskedConv2d, mask: ResizedMask, skipper: MethodSkipper) -> None:
        self.conv, self.mask, self.skipper = conv, mask, skipper
        self.sparse = not indices.is_small(mask)
        if self.sparse:
            self.border = indices.border(mask, skipper.radius)
            self.sparse = len(self.border.rows) <= MOST_BORDER * mask.active.numel()
        self.bias = conv.shifted_bias() if self.sparse else conv.bias
        shift = conv.shift if self.sparse else None
        self.start = conv.weight.new_zeros(()) if shift is None else shift

    def around(self, y: Tensor) -> Tensor:
        """The map (N, C, h, w) that has the computed rows."""
        out = _filled_with(self.start, self.mask, y.shape[1])
        return self.complete(out.index_copy_(0, indices.positions(self.mask), y))

    def complete(self, out: Tensor) -> Tensor:
        """The map of a matrix that holds computed rows, and ``start`` in all others."""
        maps = as_maps(out, self.mask)
        if not self.sparse:
            return self.everywhere(maps)
        if len(self.border.rows):
            taps = self.skipper.taps
            values = self.border.around.gather(out, self.start).view(len(taps), -1)
            # Skipped neighbours hold the shift alone, which the fill does not count.
            means = (taps @ values).view(-1, out.shape[1]) + self.start * self.skipper.rest
            out.index_copy_(0, self.border.rows, means)
        return maps

    def everywhere(self, computed: Tensor) -> Tensor:
        """The filled map of one that is 0 at skipped positions."""
        channels, radius = computed.shape[1], self.skipper.radius
        square = self.skipper.kernel.expand(channels, 1, -1, -1)
        filled = F.conv2d(computed, square, padding=radius, groups=channels)
        # A product and a sum are faster than torch.where with a mask for all channels.
        maps = torch.addcmul(computed, filled, indices.inverse(self.mask, computed.dtype))
        return maps if self.conv.shift is None else maps.add_(self.conv.shift.view(-1, 1, 1))


def whole(fill: Fill, x: Tensor) -> Tensor:
    """Everything is computed, and what the mask skips dropped."""
    y = _conv(fill.conv, x, fill.bias)
    if not fill.sparse:
        return fill.everywhere(y * fill.mask.active)
    out = as_matrix(y.contiguous(memory_format=torch.channels_last))
    out[indices.skipped(fill.mask)] = fill.start
    return fill.complete(out)


def by_positions(fill: Fill, x: Tensor) -> Tensor:
    """The window of every computed position is gathered, and one matrix product does the rest."""
    matrix, rows, geometry = as_matrix(x), indices.positions(fill.mask), fill.skipper.geometry
    if geometry == Geometry(1, 1, 0, 1):
        return from_windows(fill, matrix.index_select(0, rows))
    reads = indices.window_reads(fill.mask, size_of(x), geometry)
    return from_windows(fill, reads.gather(matrix).view(len(rows), -1))


def from_windows(fill: Fill, windows: Tensor) -> Tensor:
    """The map that a convolution makes of the windows (positions, kernel * kernel * C)."""
    conv = fill.conv
    taps = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    if conv.groups > 1:  # depthwise: a channel reads itself only
        each = windows.view(len(windows), -1, conv.out_channels)
        y = (each * taps.view(-1, conv.out_channels)).sum(1)
        y = y if fill.bias is None else y + fill.bias
    else:
        y = windows @ taps if fill.bias is None else torch.addmm(fill.bias, windows, taps)
    return fill.around(y)


METHODS = {"whole": whole, "positions": by_positions}


def _filled_with(start: Tensor, mask: ResizedMask, channels: int) -> Tensor:
    rows = start.expand(mask.active.numel(), channels)
    return rows.clone(memory_format=torch.contiguous_format)


def _conv(conv: MaskedConv2d, x: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, conv.weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
