"""Masks of the positions where a network continues, masked convolutions, and their fill.

The positions that a masked convolution skips are filled with a mean of their neighbours: a
depthwise convolution with one kernel for all channels, weights exp(-lambda^2 d^2) at distance d, 0
at the centre, all divided by (their sum + 1e-5). At lambda = 3 it is the mean of the four nearest
neighbours; a lambda above 3.5 switches it off, because of the 1e-5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.spec import published

T = TypeVar("T")

EPSILON = 1e-5
FILL_SIZE = int(published()["fill"]["size"])  # side of the fill's kernel, in positions
FILL_LAMBDA = float(published()["fill"]["lambda_init"])
# Height plus width up to which the fill uses matrices: on one core they were faster at 48 and
# slower at 384.
BANDED_SIDES = 128


def is_exported() -> bool:
    """Whether torch is tracing, as for ONNX: then control flow must not depend on a mask's values,
    and everything is computed."""
    return bool(torch.compiler.is_compiling())


def confidence(logits: Tensor) -> Tensor:
    """The largest softmax probability of each position: (N, C, h, w) to (N, 1, h, w)."""
    return logits.softmax(dim=1).amax(dim=1, keepdim=True)


def unsure(logits: Tensor, threshold: float, criterion: str = "confidence") -> Tensor:
    """Where the next segment computes, (N, 1, h, w): where confidence is at most the threshold (at
    1 everywhere, at 0 nowhere), or where the ``entropy`` in nats, or the largest ``heatmap``, is at
    least the threshold."""
    if criterion == "heatmap":
        return logits.amax(dim=1, keepdim=True) >= threshold
    if criterion == "entropy":
        log_probs = logits.log_softmax(dim=1)
        return -(log_probs.exp() * log_probs).sum(dim=1, keepdim=True) >= threshold
    return confidence(logits) <= threshold


def resized(active: Tensor, size: tuple[int, int] | None = None, grid: int = 0) -> Tensor:
    """A mask (N, 1, h, w) resized to another height and width, by nearest neighbour, and made true
    at one in ``grid`` positions along each axis. None keeps its size.

    The authors resize the logits and compare afterwards, which is the same: nearest neighbour only
    selects positions.
    """
    h, w = active.shape[-2:]
    rows, cols = size or (h, w)
    if h % rows == w % cols == 0:  # slicing selects the same positions, much faster
        active = active[..., :: h // rows, :: w // cols]
    else:
        active = F.interpolate(active.to(torch.uint8), (rows, cols), mode="nearest").bool()
    if grid:
        active, offset = active.clone(), (grid - 1) // 2
        active[..., offset::grid, offset::grid] = True
    return active


class ResizedMask:
    """A segment's mask (N, 1, h, w) at one map size, with values derived from it on demand."""

    def __init__(self, active: Tensor) -> None:
        self.active = active
        self._derived: dict[Hashable, Any] = {}

    @functools.cached_property
    def share(self) -> float:
        """The share of positions that are computed, over the batch. On a GPU this synchronizes."""
        return float(self.active.double().mean())

    def derive(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of ``make``, called once per key and shared by convolutions."""
        if key not in self._derived:
            self._derived[key] = make()
        value: T = self._derived[key]
        return value


class SegmentMask:
    """The mask of the convolutions between one exit and the next; without one, all is computed.

    ``grid`` is as for `resized`.
    """

    def __init__(self, grid: int = 0) -> None:
        self.grid = grid
        self.active: Tensor | None = None
        self._sizes: dict[tuple[int, int], ResizedMask] = {}

    def set(self, active: Tensor | None) -> None:
        """Set the mask (N, 1, h, w) of the exit before, at its logits' size, or None."""
        self.active = active
        self._sizes = {}

    def at(self, size: tuple[int, int]) -> ResizedMask | None:
        """The mask at another size; None where nothing is masked."""
        if self.active is None:
            return None
        if size not in self._sizes:
            self._sizes[size] = ResizedMask(resized(self.active, size, self.grid))
        return self._sizes[size]


# Computes a convolution at the mask's positions, with the same results.
Skipper = Callable[["MaskedConv2d", Tensor, ResizedMask | None], Tensor]


class MaskedConv2d(nn.Conv2d):
    """A convolution, bias included, where the segment's mask is true; a fill elsewhere.

    ``y * m + fill(y * m) * (1 - m)`` for the dense output y and the mask m at y's size. All of the
    dense output is computed, unless ``skipper`` is set and gradients are disabled. The weights are
    those of ``conv``, by the same names; ``shift`` (out_channels), of a folded BatchNorm, is added
    everywhere, after the fill; usually None.
    """

    shift: Tensor | None

    def __init__(self, conv: nn.Conv2d, segment: SegmentMask) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(
            {name: value for name, value in vars(conv).items() if not name.startswith("_")}
        )
        self._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
        self.weight, self.bias = conv.weight, conv.bias
        self.fill_lambda = nn.Parameter(conv.weight.new_full((1,), FILL_LAMBDA))
        self.segment = segment
        self.skipper: Skipper | None = None
        self.register_buffer("shift", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, h, w)."""
        mask = None if self.segment.active is None else self.segment.at(self.output_size(x))
        if self.skipper is not None and not torch.is_grad_enabled():
            return self.skipper(self, x, mask)
        return self.dense_form(x, mask)

    def dense_form(self, x: Tensor, mask: ResizedMask | None) -> Tensor:
        """Everything computed, then masked: the reference for skipping."""
        if mask is None:
            dense: Tensor = self._conv_forward(x, self.weight, self.shifted_bias())
            return dense
        y = super().forward(x)
        if is_exported() or mask.share < 1:
            return self.filled(y * mask.active, mask)
        if torch.is_grad_enabled():
            # Every weight still gets a gradient, as data parallelism requires.
            y = y + 0 * self.fill_lambda
        return y if self.shift is None else y + self.shift.view(-1, 1, 1)

    def filled(self, computed: Tensor, mask: ResizedMask) -> Tensor:
        """The output (N, out_channels, h, w) for ``computed``, which is 0 at skipped positions."""
        y = torch.where(mask.active, computed, fill_skipped(computed, self.fill_lambda))
        return y if self.shift is None else y + self.shift.view(-1, 1, 1)

    def shifted_bias(self) -> Tensor | None:
        """The sum of bias and shift, which is the bias of computed positions."""
        if self.shift is None or self.bias is None:
            return self.bias if self.shift is None else self.shift
        return self.bias + self.shift

    def output_size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output for an input (N, in_channels, H, W)."""
        if isinstance(self.padding, str):
            raise NotImplementedError("padding given by a word")
        extent = [self.dilation[axis] * (self.kernel_size[axis] - 1) + 1 for axis in (0, 1)]
        height, width = (
            (x.shape[axis - 2] + 2 * self.padding[axis] - extent[axis]) // self.stride[axis] + 1
            for axis in (0, 1)
        )
        return height, width

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A plain network's weights lack it; the current value stays.
        state_dict.setdefault(f"{prefix}fill_lambda", self.fill_lambda.detach())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def mask_convolutions(module: nn.Module, segment: SegmentMask) -> nn.Module:
    """Replace a module's convolutions with masked ones; returns it, or its replacement.

    Convolutions of squeeze-and-excitation layers stay: their maps have one position, shared by all.
    So do those of subclasses, such as timm's with standardised weights or padding that depends on
    the map, which would be lost: they are computed everywhere, and counted so.
    """
    from timm import layers
    from timm.models._efficientnet_blocks import SqueezeExcite

    if type(module) is nn.Conv2d:
        return MaskedConv2d(module, segment)
    pooled = (SqueezeExcite, layers.SEModule, layers.EffectiveSEModule, layers.GlobalContext)
    if not isinstance(module, pooled):
        for name, child in module.named_children():
            setattr(module, name, mask_convolutions(child, segment))
    return module


def radial_kernel(scale: Tensor) -> Tensor:
    """The fill's kernel (7, 7) for ``scale``, which is lambda, one number."""
    taps = _taps(scale)
    kernel = torch.outer(taps, taps)
    kernel[FILL_SIZE // 2, FILL_SIZE // 2] = 0
    return kernel / (kernel.sum() + EPSILON)


def fill_skipped(computed: Tensor, scale: Tensor) -> Tensor:
    """Means of the computed neighbours, valid at skipped positions only.

    Except for its centre the kernel is the product of a row and a column, and at a skipped position
    the centre's value is 0: so a row and a column of 7 replace a square of 49. On small maps both
    are products with a banded matrix, which was measured to train up to 20 times faster there than
    the square.

    ``computed`` are maps (N, C, h, w), 0 at the skipped positions; ``scale`` is lambda.
    """
    row = _taps(scale)
    column = row / (row.sum() ** 2 - 1 + EPSILON)
    h, w = computed.shape[-2:]
    if h + w <= BANDED_SIDES and not is_exported():
        filled: Tensor = _banded(column, h) @ computed @ _banded(row, w)
        return filled
    c, reach = computed.shape[1], len(row) // 2
    row_kernel = row.view(1, 1, 1, -1).expand(c, -1, -1, -1)
    column_kernel = column.view(1, 1, -1, 1).expand(c, -1, -1, -1)
    maps = F.conv2d(computed, row_kernel, padding=(0, reach), groups=c)
    return F.conv2d(maps, column_kernel, padding=(reach, 0), groups=c)


def reach_of(scale: float, eps: float) -> int:
    """The radius beyond which the fill's weights are negligible at precision ``eps`` of a type."""
    taps = _taps(torch.tensor(scale, dtype=torch.float64))
    centre = len(taps) // 2
    total = float(taps.sum() ** 2 - 1)
    for radius in range(1, centre):
        within = float(taps[centre - radius : centre + radius + 1].sum() ** 2 - 1)
        if total - within <= eps * total:
            return radius
    return centre


def _taps(scale: Tensor) -> Tensor:
    reach = FILL_SIZE // 2
    distance = torch.arange(-reach, reach + 1, dtype=scale.dtype, device=scale.device)
    return torch.exp(-(scale.reshape(()) ** 2) * distance**2)


def _banded(taps: Tensor, side: int) -> Tensor:
    """The matrix (side, side) that correlates with symmetric taps when multiplied."""
    return F.pad(taps, (0, 1))[_bands(side, len(taps), taps.device)]


@functools.cache
def _bands(side: int, n_taps: int, device: torch.device) -> Tensor:
    """The index of the tap at each element of a banded matrix; ``n_taps`` for none."""
    with torch.inference_mode(False):  # training may use what an evaluation has cached
        offsets = torch.arange(side, device=device)
        distance = (offsets[:, None] - offsets[None, :]).abs()
        return (n_taps // 2 + distance).clamp(max=n_taps)
