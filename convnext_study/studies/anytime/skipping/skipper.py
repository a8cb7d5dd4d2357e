"""Convolutions and heads that compute at a mask's positions only, or everywhere, by the kernels.

Equal to the masked dense form up to rounding. Maps are in channels-last layout, in which a position
is a row of memory: runs of computed positions are computed in place. Without the kernels, as on a
GPU, few positions are gathered as windows for one matrix product, and many are computed densely.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.backbones import FlexHead, upsample
from convnext_study.studies.anytime.masks import (
    MaskedConv2d,
    ResizedMask,
    SegmentMask,
    radial_kernel,
    reach_of,
)
from convnext_study.studies.anytime.skipping.compiled import LANES, Shape, call, usable

FEW = 0.5  # the share of positions up to which they are gathered without a kernel; ours


def has_kernel(conv: nn.Conv2d) -> bool:
    """Whether the kernels support this convolution."""
    square = all(
        not isinstance(pair, str) and pair[0] == pair[1]
        for pair in (conv.kernel_size, conv.stride, conv.padding)
    )
    grouping = conv.groups == 1 or conv.groups == conv.in_channels == conv.out_channels
    return square and grouping and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


class Packed(nn.Module):
    """A convolution's weights as the kernels read them. They move to a device with it.

    ``weights`` (kernel * kernel * inputs, outputs rounded up to whole vectors) and ``bias``,
    including a folded BatchNorm.
    """

    weights: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, bias: Tensor | None) -> None:
        super().__init__()
        outputs = conv.out_channels
        self.packed = -(-outputs // LANES) * LANES
        padding = (0, self.packed - outputs)
        flat = conv.weight.detach().permute(2, 3, 1, 0).reshape(-1, outputs)
        bias_ = flat.new_zeros(outputs) if bias is None else bias.detach()
        self.register_buffer("weights", F.pad(flat, padding).contiguous(), persistent=False)
        self.register_buffer("bias", F.pad(bias_, padding).contiguous(), persistent=False)

    def convolve(
        self,
        conv: nn.Conv2d,
        x: Tensor,
        state: Tensor | None = None,
        *,
        onto: Tensor | None = None,
        relu: bool = False,
    ) -> tuple[Tensor, Shape]:
        """The output (N, outputs, h, w) at computed positions, undefined elsewhere, and its shape.
        It is added to ``onto`` in place if that is given.

        Raises ValueError for maps that the convolution cannot take, for a ``state`` or ``onto``
        that does not fit its output, and for a depthwise one with ``onto`` or ``relu``, none of
        which a kernel would detect.
        """
        x = in_rows(x)
        n, c_in, h, w = x.shape
        if (c_in, x.dtype) != (conv.in_channels, self.weights.dtype):
            raise ValueError(
                f"maps of {c_in} channels in {x.dtype}; the convolution expects "
                f"{conv.in_channels} in {self.weights.dtype}"
            )
        (kernel, _), (stride, _), padding = conv.kernel_size, conv.stride, int(conv.padding[0])
        rows, cols = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
        window = (kernel, stride, padding, conv.groups > 1, onto is not None, relu)
        shape = Shape(h, w, c_in, rows, cols, conv.out_channels, self.packed, *window)
        if conv.groups > 1 and (onto is not None or relu):
            raise ValueError("a depthwise convolution neither adds nor has a ReLU")
        if state is not None:
            checked(state, "a mask's states", (n, rows, cols), torch.uint8)
        size = (n, conv.out_channels, rows, cols)
        out = empty_maps(x, size) if onto is None else checked_onto(onto, size, x.dtype)
        call("convolve", x, (self.weights, self.bias), state, out, shape)
        return out, shape


class KernelConv2d(nn.Conv2d):
    """A convolution without a mask, by the kernels if available; ``relu`` adds a ReLU.

    Parameters and state dict are those of the `Conv2d` that it replaces.
    """

    pack: Packed
    relu: bool = False

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        if torch.is_grad_enabled() or not usable(input):
            return F.relu(super().forward(input)) if self.relu else super().forward(input)
        return self.pack.convolve(self, input, relu=self.relu)[0]


class FusedBlock(nn.Module):
    """A residual block of timm's without BatchNorms: sums and ReLUs in as few passes as possible.

    The input, or its shortcut, is overwritten: nothing else in an HRNet reads it.
    """

    conv1: nn.Conv2d
    downsample: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        shortcut = in_rows(x if self.downsample is None else self.downsample(x))
        *before, last = [conv for name, conv in self.named_children() if name.startswith("conv")]
        for conv in before:
            x = step(conv, x)
        return step(last, x, shortcut)


def step(conv: nn.Module, x: Tensor, onto: Tensor | None = None) -> Tensor:
    """relu(conv(x)), or relu(conv(x) + onto); the kernels overwrite ``onto``."""
    use_kernels = not torch.is_grad_enabled() and usable(x)
    if use_kernels and isinstance(conv, KernelConv2d):
        return conv.pack.convolve(conv, x, onto=onto, relu=True)[0]
    y: Tensor = conv(x)
    if not use_kernels:
        return F.relu(y if onto is None else y + onto)
    y = in_rows(y)
    out = y if onto is None else checked_onto(onto, tuple(y.shape), y.dtype)
    channels, rows, cols = y.shape[1:]
    shape = Shape(rows=rows, cols=cols, c_out=channels, add=onto is not None)
    call("finish", y, (y, y), None, out, shape)
    return out


class Skipper(Packed):
    """Computes one masked convolution at a mask's positions.

    ``taps`` are the fill's kernel, cropped to what matters in the weights' precision; ``shift``
    (outputs) is added to the fill.
    """

    taps: Tensor
    shift: Tensor

    def __init__(self, conv: MaskedConv2d) -> None:
        super().__init__(conv, conv.shifted_bias())
        scale, shift = conv.fill_lambda.detach(), conv.shift
        self.radius = reach_of(float(scale), torch.finfo(conv.weight.dtype).eps)
        kernel = radial_kernel(scale)
        window = slice(len(kernel) // 2 - self.radius, len(kernel) // 2 + self.radius + 1)
        zeros = conv.weight.new_zeros(conv.out_channels)
        self.register_buffer("taps", kernel[window, window].contiguous(), persistent=False)
        self.register_buffer("shift", zeros if shift is None else shift, persistent=False)

    def forward(self, conv: MaskedConv2d, x: Tensor, mask: ResizedMask | None) -> Tensor:
        """The convolution's output, equal to the masked dense one up to rounding."""
        if not usable(x):
            if mask is None or conv.groups > 1 or mask.share > FEW:
                return conv.dense_form(x, mask)
            return by_gathering(conv, x, mask)
        state = None if mask is None else states(mask, self.radius)
        out, shape = self.convolve(conv, x, state)
        if state is not None:
            shape.kernel = 2 * self.radius + 1
            call("fill", x, (self.taps, self.shift), state, out, shape)
        return out


def by_gathering(conv: MaskedConv2d, x: Tensor, mask: ResizedMask) -> Tensor:
    """The convolution as one matrix product on the gathered windows of the computed positions."""
    padding, step = int(conv.padding[0]), conv.stride[0]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    image, row, column = mask.derive("places", lambda: mask.active[:, 0].nonzero().unbind(1))
    offsets = torch.arange(conv.kernel_size[0], device=x.device)
    rows = (row * step)[:, None, None] + offsets[:, None]
    columns = (column * step)[:, None, None] + offsets
    windows = padded[image[:, None, None], rows, columns].flatten(1)
    taps = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    y = x.new_zeros((*mask.active[:, 0].shape, conv.out_channels))
    y[image, row, column] = windows @ taps if conv.bias is None else windows @ taps + conv.bias
    return conv.filled(y.permute(0, 3, 1, 2), mask)


def states(mask: ResizedMask, radius: int) -> Tensor:
    """Each position's state, (N, h, w) uint8: 2 where it is computed, 1 where a computed one is
    within ``radius``, else 0."""

    def make() -> Tensor:
        active = mask.active[:, 0].float()
        near = F.max_pool2d(active, 2 * radius + 1, 1, radius) if radius else active
        return (near + active).to(torch.uint8).contiguous()

    return mask.derive(("states", radius), make)


def skipping_head(head: nn.Module, maps: Sequence[Tensor], segment: SegmentMask) -> Tensor:
    """Logits (N, classes, h, w) of maps of several sizes, the largest first.

    They are the head's where the mask is true, and undefined elsewhere, where merging keeps the
    logits of the exit before. The head's BatchNorms are folded.
    """
    h, w = maps[0].shape[-2:]
    if not usable(maps[0]) or (isinstance(head, FlexHead) and (h % 2 or w % 2)):
        logits: Tensor = head(torch.cat([upsample(m, (h, w)) for m in maps], dim=1))
        return logits
    if isinstance(head, FlexHead):  # its first pooling and convolution from single positions
        first = head.convs[0](join(maps, segment, (h // 2, w // 2)))
        return head.after_convolution(first, (h, w))
    x = join(maps, segment, (h, w))
    convs = [m for m in head.modules() if isinstance(m, MaskedConv2d)]
    for conv in convs:  # pointwise: filled positions would not be read
        assert isinstance(conv.skipper, Skipper)  # noqa: S101  heads have no others
        x, _ = conv.skipper.convolve(conv, x, state_at(segment, (h, w)), relu=conv is not convs[-1])
    return x


def state_at(segment: SegmentMask, size: tuple[int, int]) -> Tensor:
    """Which positions a segment computes at a size: `states` with radius 0."""
    mask = segment.at(size)
    assert mask is not None  # noqa: S101  the network calls heads only where something is masked
    return states(mask, 0)


def join(maps: Sequence[Tensor], segment: SegmentMask, size: tuple[int, int]) -> Tensor:
    """Maps concatenated at the size of the first one, or of that pooled to a half: (N, C, h, w), at
    the mask's positions; undefined elsewhere."""
    state, total = state_at(segment, size), sum(m.shape[1] for m in maps)
    out, channel = empty_maps(maps[0], (len(maps[0]), total, *size)), 0
    checked(state, "a mask's states", (len(out), *size), torch.uint8)
    pooled = maps[0].shape[-1] // size[1]
    for m in map(in_rows, maps):
        c_in, h, w = m.shape[1:]
        shape = Shape(h, w, c_in, *size, total, total, pooled)
        call("join", m, (m, m), state, out[:, channel:], shape)
        channel += c_in
    return out


def checked_onto(onto: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``onto``; raises ValueError unless it is maps of this shape and type, in rows."""
    return checked(onto, "added to maps", shape, dtype, torch.channels_last)


def checked(
    x: Tensor,
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """``x``; raises ValueError for another shape, type or layout, which kernels do not check."""
    if (x.shape, x.dtype) == (shape, dtype) and x.is_contiguous(memory_format=layout):
        return x
    raise ValueError(f"{name} {tuple(x.shape)} in {x.dtype}; the output needs {shape} in {dtype}")


def in_rows(x: Tensor) -> Tensor:
    """Maps whose positions are rows of memory."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_maps(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uninitialised maps with the type and device of ``x``, in rows."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
