"""Dense convolutions whose kernel is larger than the map, without the taps that only meet padding.

A 7x7 kernel on a 2x2 map uses 9 of its 49 taps, on a 1x1 map one. Steps of the road taken out of
order make such networks: large kernels before depthwise convolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class CroppedConv(nn.Conv2d):
    """A convolution that leaves out the taps which no position of a small map can meet.

    The same parameters and state dict as the `Conv2d` it takes the place of, and the same outputs
    up to rounding. Maps (N, C, H, W) to (N, C', H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        dilation = self.dilation[0]
        cut = self.kernel_size[0] // 2 - (max(input.shape[2:]) - 1) // dilation
        if cut <= 0 or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        assert isinstance(self.padding, tuple)  # noqa: S101  matrix_form() asked
        geometry = (self.stride[0], int(self.padding[0]) - cut * dilation, dilation)
        return _Cropped.apply(input, self.weight, self.bias, cut, *geometry)  # type: ignore[no-any-return]


class _Cropped(torch.autograd.Function):
    """A slice alone would do the same; its backward pass copies the whole weight several times."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        cut: int,
        stride: int,
        padding: int,
        dilation: int,
    ) -> Tensor:
        part = _middle(weight, cut).contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(input, weight, part)
        ctx.geometry = cut, stride, padding, dilation
        return F.conv2d(input, part, bias, stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, part = ctx.saved_tensors
        cut, stride, padding, dilation = ctx.geometry
        to_input, to_part, to_bias = torch.ops.aten.convolution_backward(
            grad, input, part, [len(part)], [stride] * 2, [padding] * 2, [dilation] * 2,
            False, [0, 0], 1, ctx.needs_input_grad[:3],
        )  # fmt: skip
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = torch.zeros_like(weight)
            _middle(to_weight, cut).copy_(to_part)
        return to_input, to_weight, to_bias, None, None, None, None


def _middle(weight: Tensor, cut: int) -> Tensor:
    """The kernel without ``cut`` taps on each side."""
    kernel = weight.shape[2]
    return weight[:, :, cut : kernel - cut, cut : kernel - cut]
