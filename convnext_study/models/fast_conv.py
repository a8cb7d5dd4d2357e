"""Convolutions of a network as matrix products, for training on a CPU.

Dense convolutions with very few output positions: with two or four positions torch's convolution
is far from the machine's peak. A kernel larger than the map also multiplies taps that only meet
padding: for 7x7 on a 2x2 map all but 9 of 49, on a 1x1 map all but one. Steps of the road applied
out of order make such networks.

Depthwise convolutions on small maps, whose weight gradient becomes a matrix product. In a small
network, most of a large depthwise kernel's training time is the gradient of its weights, which
torch computes at a few percent of the machine's peak. On a map of few positions, all products of
input and output positions are one small matrix per channel, and the kernel's taps are sums of its
diagonals. Output and input gradient are still torch's.

Convolutions whose outputs share no input: pointwise ones, strided or not, and those of patches are
linear layers on positions. With channels last, torch's matrix product takes less time than its
convolution, which repacks its weights at each call.

Speed-ups with one thread, channels last, against torch's, batch 64 unless stated otherwise. Dense,
forward and backward: 3x3 from 4x4 to 2x2 maps with 384 channels 3x, on 2x2 maps 3x, from 2x2 to 1x1
with 768 4x; 7x7 on 2x2 maps 4x, on 1x1 ones 7x; with 16 positions torch is faster, and is used.
Depthwise, the weight gradient alone: kernel 7 on 8x8 maps 1.7x, on 4x4 9x, on 2x2 11x; kernel 5 on
8x8 1.2x; batch 8, kernel 7 with 768 channels on 7x7 3 to 6x; with kernel 3 torch is faster from 4x4
on, and is used. Without overlap, forward and backward: on maps from 8x8 to 1x1 1.1 to 4x; batch 8
on the maps of ConvNeXt-T at 224, 1.0 to 1.4x.
"""

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_POSITIONS = 4  # of a dense convolution's output
LARGEST_MAP = 64  # positions of a depthwise convolution's input
LARGEST_MAP_OF_KERNEL_3 = 9
FEWEST_CHANNELS = 8  # patches of RGB images are faster as a convolution


class Geometry(NamedTuple):
    """A square convolution of ``kernel`` taps, after ``cut`` taps were removed on each side."""

    cut: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    def outputs(self, side: int) -> int:
        """Output positions along a side of ``side`` input positions."""
        reach = self.dilation * (self.kernel - 1)
        return (side + 2 * self.padding - reach - 1) // self.stride + 1

    def tap_positions(self, tap: int, side: int) -> slice:
        """The padded positions that a tap multiplies along a side."""
        first = tap * self.dilation
        return slice(first, first + self.stride * (self.outputs(side) - 1) + 1, self.stride)


class Im2colConv2d(nn.Conv2d):
    """A convolution that becomes a matrix product if its output has few positions.

    The same parameters and state dict as the `Conv2d` it replaces, and the same outputs up to
    rounding. Maps (N, C, H, W) to (N, C', H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W'), by whichever form is faster."""
        geometry = _geometry(self, max(input.shape[2:]))
        positions = geometry.outputs(input.shape[2]) * geometry.outputs(input.shape[3])
        unsupported = input.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if unsupported or positions > MOST_POSITIONS:
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
        out_height, out_width = map(geometry.outputs, input.shape[2:])
        return output.view(len(input), out_height, out_width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, part, patches = ctx.saved_tensors
        rows = grad.permute(0, 2, 3, 1).reshape(-1, len(weight))
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = _folded(rows @ part, ctx.shape, ctx.geometry)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.zeros_like(weight)
            middle = _middle(grad_weight, ctx.geometry.cut)
            count, channels, side, _ = middle.shape
            middle.copy_((rows.t() @ patches).view(count, side, side, channels).permute(0, 3, 1, 2))
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_input, grad_weight, grad_bias, None


def _geometry(conv: nn.Conv2d, side: int) -> Geometry:
    """The geometry of a padded convolution on maps of at most this side."""
    assert isinstance(conv.padding, tuple)  # noqa: S101  checked by gemm_class()
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    cut = max(kernel // 2 - (side - 1) // dilation, 0)
    padding = int(conv.padding[0]) - cut * dilation
    return Geometry(cut, kernel - 2 * cut, conv.stride[0], padding, dilation)


def _middle(weight: Tensor, cut: int) -> Tensor:
    """The kernel without ``cut`` taps on each side."""
    kernel = weight.shape[2]
    return weight[:, :, cut : kernel - cut, cut : kernel - cut]


def _patches(input: Tensor, geometry: Geometry) -> Tensor:
    """The inputs of each output position: (N * H' * W', kernel * kernel * C)."""
    count, channels, height, width = input.shape
    _, kernel, stride, padding, dilation = geometry
    padded = F.pad(input.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    image, row, column, channel = padded.stride()
    out_height, out_width = geometry.outputs(height), geometry.outputs(width)
    views = padded.as_strided(
        (count, out_height, out_width, kernel, kernel, channels),
        (image, row * stride, column * stride, row * dilation, column * dilation, channel),
    )
    return views.reshape(count * out_height * out_width, -1)


def _folded(patches: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """Patches summed at their input positions, (N, C, H, W)."""
    count, channels, height, width = shape
    side, padding = geometry.kernel, geometry.padding
    out_height, out_width = geometry.outputs(height), geometry.outputs(width)
    taps = patches.view(count, out_height, out_width, side, side, channels)
    padded = patches.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    for down in range(side):
        rows = geometry.tap_positions(down, height)
        for across in range(side):
            columns = geometry.tap_positions(across, width)
            padded[:, rows, columns] += taps[:, :, :, down, across]
    inner = padded[:, padding : padding + height, padding : padding + width]
    return inner.permute(0, 3, 1, 2)


class GemmGradDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution whose weight gradient is a matrix product if the map is small.

    The same parameters, state dict and outputs as the `Conv2d` it replaces, and the same gradients
    up to rounding. Maps (N, C, H, W) to (N, C, H', W').
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
        assert isinstance(self.padding, tuple)  # noqa: S101  checked by gemm_class()
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
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = torch.ops.aten.convolution_backward(
                grad, input, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2,
                False, [0, 0], len(weight), (True, False, False),
            )[0]  # fmt: skip
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(input, grad, weight.shape[2], stride, padding, dilation)
            # One input channel: the same memory, with the strides that gradient buckets expect.
            grad_weight = grad_weight.as_strided(weight.shape, weight.stride())
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias, None, None, None


def weight_gradient(
    input: Tensor, grad: Tensor, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """The gradient (C, 1, K, K) of a depthwise convolution's weight.

    Args:
        input: (N, C, H, W).
        grad: the gradient of the output, (N, C, H', W').
        kernel: side of the kernel K; like all below, the same in both directions.
        stride: of the convolution.
        padding: zeros on each side.
        dilation: of the convolution.
    """
    channels, height, width = input.shape[1:]
    taps = position_taps(height, width, kernel, stride, padding, dilation).to(input.dtype)
    products = torch.bmm(_by_channel(input).transpose(1, 2), _by_channel(grad))
    return (products.view(channels, -1) @ taps.t()).view(channels, 1, kernel, kernel)


def _by_channel(maps: Tensor) -> Tensor:
    """(N, C, H, W) to (C, N, H * W), in one transposition if channels are last in memory."""
    count, channels, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    return rows.t().contiguous().view(channels, count, height * width)


@functools.lru_cache(maxsize=64)
def position_taps(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Which tap connects which input position to which output position.

    Returns a 0/1 matrix (kernel * kernel, H * W * H' * W').
    """
    image = torch.eye(height * width).view(height * width, 1, height, width)
    taps = torch.eye(kernel * kernel).view(kernel * kernel, 1, kernel, kernel)
    with torch.no_grad():
        connected = F.conv2d(image, taps, stride=stride, padding=padding, dilation=dilation)
    return connected.transpose(0, 1).reshape(kernel * kernel, -1)


class LinearConv2d(nn.Conv2d):
    """A convolution without overlap, as a matrix product if channels are last in memory.

    The same parameters and state dict as the `Conv2d` it replaces, and the same outputs up to
    rounding. Maps (N, C, H, W) to (N, C', H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        channels_last = input.is_contiguous(memory_format=torch.channels_last)
        if input.device.type != "cpu" or not channels_last:
            return super().forward(input)
        side, stride = self.kernel_size[0], self.stride[0]
        maps = input.permute(0, 2, 3, 1)
        if side > 1:
            maps = _tiles(maps, side)
        elif stride > 1:
            maps = maps[:, ::stride, ::stride]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(maps, weight, self.bias).permute(0, 3, 1, 2)


def _tiles(maps: Tensor, side: int) -> Tensor:
    """(N, H, W, C) to (N, H / side, W / side, side * side * C); the remainder is cut off."""
    count, height, width, channels = maps.shape
    down, across = height // side, width // side
    maps = maps[:, : down * side, : across * side]
    squares = maps.reshape(count, down, side, across, side, channels).transpose(2, 3)
    return squares.reshape(count, down, across, side * side * channels)


FORMS = (Im2colConv2d, GemmGradDepthwiseConv2d, LinearConv2d)


def use_gemm_convs(model: nn.Module) -> int:
    """Replace a model's convolutions by these forms if that is faster; returns their number.

    Parameters, buffers and names do not change. `restore_convs` undoes it.
    """
    count = 0
    for module in model.modules():
        form = gemm_class(module)
        if form is not None:
            module.__class__ = form
            count += 1
    return count


def restore_convs(model: nn.Module) -> None:
    """Undo `use_gemm_convs`, for export and scripting."""
    for module in model.modules():
        if type(module) in FORMS:
            module.__class__ = nn.Conv2d


def gemm_class(module: nn.Module) -> type[nn.Conv2d] | None:
    """The class that computes a plain, square convolution faster, if any."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
        return None
    sides = (module.kernel_size, module.stride, module.padding, module.dilation)
    if not all(isinstance(pair, tuple) and len(set(pair)) == 1 for pair in sides):
        return None
    kernel, stride = module.kernel_size[0], module.stride[0]
    if module.groups == module.in_channels == module.out_channels > 1:
        return GemmGradDepthwiseConv2d if kernel % 2 == 1 else None
    same_size = module.padding[0] == module.dilation[0] * (kernel // 2)
    if module.groups == 1 and kernel > 1 and kernel % 2 == 1 and same_size:
        return Im2colConv2d
    without_overlap = kernel == 1 or (kernel == stride and module.dilation[0] == 1)
    enough_channels = kernel == 1 or module.in_channels >= FEWEST_CHANNELS
    if module.groups == 1 and module.padding[0] == 0 and without_overlap and enough_channels:
        return LinearConv2d
    return None
