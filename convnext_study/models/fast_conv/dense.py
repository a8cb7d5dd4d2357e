"""Dense convolutions with very few output positions as matrix products.

Where two or four positions are left torch's convolution is far from the machine's peak. A kernel
larger than the map also multiplies taps that only meet padding: of 7x7 on a 2x2 map 9 taps of 49
do not, on a 1x1 map one. Steps of the road taken out of order make such networks.

Measured with one thread, channels last, batch 64, forward and backward, against torch's: 3x3 from
4x4 to 2x2 maps with 384 channels 3x, on 2x2 maps 3x, from 2x2 to 1x1 with 768 4x; 7x7 on 2x2 maps
4x, on 1x1 ones 7x. With 16 positions torch is faster, and is used.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_POSITIONS = 4  # of the output


class Geometry(NamedTuple):
    """Of a square convolution without its ``cut`` outer taps: what is left has ``kernel`` taps."""

    cut: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    def outputs(self, side: int) -> int:
        """Positions of the output along a side of so many."""
        reach = self.dilation * (self.kernel - 1)
        return (side + 2 * self.padding - reach - 1) // self.stride + 1

    def reached(self, tap: int, side: int) -> slice:
        """The padded positions that a tap meets along a side."""
        first = tap * self.dilation
        return slice(first, first + self.stride * (self.outputs(side) - 1) + 1, self.stride)


class Im2colConv2d(nn.Conv2d):
    """A convolution that is a matrix product where its output has few positions.

    The same parameters and state dict as the `Conv2d` it takes the place of, and the same outputs
    up to rounding. Maps (N, C, H, W) to (N, C', H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W'), by whichever form is faster there."""
        geometry = _geometry(self, max(input.shape[2:]))
        positions = geometry.outputs(input.shape[2]) * geometry.outputs(input.shape[3])
        elsewhere = input.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if elsewhere or positions > MOST_POSITIONS:
            return super().forward(input)
        return _Dense.apply(input, self.weight, self.bias, geometry)  # type: ignore[no-any-return]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        patches = _patches(input, geometry)
        part = _middle(weight, geometry.cut).permute(0, 2, 3, 1).reshape(len(weight), -1)
        ctx.save_for_backward(weight, part, patches)
        ctx.geometry, ctx.shape = geometry, input.shape
        output = F.linear(patches, part, bias)
        high, wide = map(geometry.outputs, input.shape[2:])
        return output.view(len(input), high, wide, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, part, patches = ctx.saved_tensors
        rows = grad.permute(0, 2, 3, 1).reshape(-1, len(weight))
        to_input = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_input = _folded(rows @ part, ctx.shape, ctx.geometry)
        if ctx.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight)
            middle = _middle(to_weight, ctx.geometry.cut)
            count, channels, side, _ = middle.shape
            middle.copy_((rows.t() @ patches).view(count, side, side, channels).permute(0, 3, 1, 2))
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(0)
        return to_input, to_weight, to_bias, None


def _geometry(conv: nn.Conv2d, side: int) -> Geometry:
    """That of a padded convolution on maps of at most this side."""
    assert isinstance(conv.padding, tuple)  # noqa: S101  gemm_class() asked
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    cut = max(kernel // 2 - (side - 1) // dilation, 0)
    padding = int(conv.padding[0]) - cut * dilation
    return Geometry(cut, kernel - 2 * cut, conv.stride[0], padding, dilation)


def _middle(weight: Tensor, cut: int) -> Tensor:
    """The kernel without ``cut`` taps on each side."""
    kernel = weight.shape[2]
    return weight[:, :, cut : kernel - cut, cut : kernel - cut]


def _patches(input: Tensor, geometry: Geometry) -> Tensor:
    """What each output position sees: (N * H' * W', kernel * kernel * C)."""
    count, channels, height, width = input.shape
    _, kernel, stride, padding, dilation = geometry
    padded = F.pad(input.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    image, row, column, channel = padded.stride()
    high, wide = geometry.outputs(height), geometry.outputs(width)
    views = padded.as_strided(
        (count, high, wide, kernel, kernel, channels),
        (image, row * stride, column * stride, row * dilation, column * dilation, channel),
    )
    return views.reshape(count * high * wide, -1)


def _folded(patches: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """The sum of patches where they came from, (N, C, H, W)."""
    count, channels, height, width = shape
    side, padding = geometry.kernel, geometry.padding
    high, wide = geometry.outputs(height), geometry.outputs(width)
    taps = patches.view(count, high, wide, side, side, channels)
    padded = patches.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    for down in range(side):
        for across in range(side):
            met = (slice(None), geometry.reached(down, height), geometry.reached(across, width))
            padded[met] += taps[:, :, :, down, across]
    inner = padded[:, padding : padding + height, padding : padding + width]
    return inner.permute(0, 3, 1, 2)
