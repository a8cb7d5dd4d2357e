"""Depthwise convolutions whose weight gradient is a matrix product, for small maps on the CPU.

A training step of a small network spends most of a large depthwise kernel's time in the gradient
of its weights, which torch computes at a few percent of the machine's peak. On a map of few
positions all products of an input with an output position are one small matrix per channel, of
which the kernel's taps are sums of diagonals. Output and input gradient stay torch's own.

Measured with one thread, channels last, for the weight gradient alone against torch's: batch 64,
kernel 7 on 8x8 maps 1.7x, on 4x4 9x, on 2x2 11x; kernel 5 on 8x8 1.2x; batch 8, kernel 7 with 768
channels on 7x7 3 to 6x. With kernel 3 torch is faster from 4x4 on, and is used.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGEST_MAP = 64  # positions
LARGEST_MAP_OF_KERNEL_3 = 9


class GemmGradDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution whose weight gradient is a matrix product where the map is small.

    The same parameters, state dict and outputs as the `Conv2d` it takes the place of, and the
    same gradients up to rounding. Maps (N, C, H, W) to (N, C, H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        largest = LARGEST_MAP if self.kernel_size[0] > 3 else LARGEST_MAP_OF_KERNEL_3
        if (
            not torch.is_grad_enabled()
            or not self.weight.requires_grad
            or input.device.type != "cpu"
            or torch.is_autocast_enabled("cpu")
            or input.shape[2] * input.shape[3] > largest
        ):
            return super().forward(input)
        assert isinstance(self.padding, tuple)  # noqa: S101  gemm_class() asked
        geometry = (self.stride[0], int(self.padding[0]), self.dilation[0])
        return _Depthwise.apply(input, self.weight, self.bias, *geometry)  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        dilation: int,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        to_input = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_input = torch.ops.aten.convolution_backward(
                grad, input, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2,
                False, [0, 0], len(weight), (True, False, False),
            )[0]  # fmt: skip
        if ctx.needs_input_grad[1]:
            to_weight = weight_gradient(input, grad, weight.shape[2], stride, padding, dilation)
            # One input channel: the same places in memory, by the strides that buckets expect.
            to_weight = to_weight.as_strided(weight.shape, weight.stride())
        if ctx.needs_input_grad[2]:
            to_bias = grad.sum((0, 2, 3))
        return to_input, to_weight, to_bias, None, None, None


def weight_gradient(
    input: Tensor, grad: Tensor, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """The gradient (C, 1, K, K) of a depthwise convolution's weight.

    Args:
        input: (N, C, H, W).
        grad: the gradient of the output, (N, C, H', W').
        kernel: side of the kernel K; as all below, the same in both directions.
        stride: of the convolution.
        padding: zeros on each side.
        dilation: of the convolution.
    """
    channels, height, width = input.shape[1:]
    taps = position_taps(height, width, kernel, stride, padding, dilation).to(input.dtype)
    products = torch.bmm(_by_channel(input).transpose(1, 2), _by_channel(grad))
    return (products.view(channels, -1) @ taps.t()).view(channels, 1, kernel, kernel)


def _by_channel(maps: Tensor) -> Tensor:
    """(N, C, H, W) to (C, N, H * W), in one transposition where the channels come last."""
    count, channels, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    return rows.t().contiguous().view(channels, count, height * width)


@functools.lru_cache(maxsize=64)
def position_taps(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Which tap leads from which input position to which output position.

    Returns a 0/1 matrix (kernel * kernel, H * W * H' * W').
    """
    image = torch.eye(height * width).view(height * width, 1, height, width)
    taps = torch.eye(kernel * kernel).view(kernel * kernel, 1, kernel, kernel)
    with torch.no_grad():
        moved = F.conv2d(image, taps, stride=stride, padding=padding, dilation=dilation)
    return moved.transpose(0, 1).reshape(kernel * kernel, -1)
