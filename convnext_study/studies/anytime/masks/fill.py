"""What stands at the positions that a masked convolution skips: a mean of their neighbours.

A depthwise convolution with one kernel for all channels: weight exp(-lambda^2 d^2) by the distance
d, nothing at the centre, all divided by (their sum + 1e-5). At lambda = 3 it is the mean of the
four nearest neighbours; a lambda above 3.5 switches it off, by the 1e-5.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.studies.anytime.published import published

EPSILON = 1e-5
# Height and width together, up to which matrices are used: on one core they were faster at 48 and
# slower at 384.
BANDED_SIDES = 128


def size_of_fill() -> int:
    """Side of the kernel, in positions."""
    return int(published()["fill"]["size"])


def radial_kernel(scale: Tensor) -> Tensor:
    """The kernel (7, 7) of ``scale``, which is lambda: one number."""
    side = _taps(scale, size_of_fill() // 2)
    kernel = torch.outer(side, side)
    centre = len(side) // 2
    hole = torch.ones_like(kernel)
    hole[centre, centre] = 0
    kernel = kernel * hole
    return kernel / (kernel.sum() + EPSILON)


def fill_skipped(computed: Tensor, scale: Tensor, radius: int | None = None) -> Tensor:
    """Means of the computed neighbours, which hold at skipped positions only.

    The kernel is a product of a row and a column but for its centre, and where a position is
    skipped the centre's value is 0: so a row and a column of 7 do what a square of 49 does. On
    small maps both are products with a banded matrix, which was measured to train up to 20 times
    faster there than the square.

    Args:
        computed: maps (N, C, h, w), 0 at the skipped positions.
        scale: lambda, one number.
        radius: positions that the kernel reaches; None for all of it.
    """
    full = size_of_fill() // 2
    row = _taps(scale, full)
    column = row / (row.sum() ** 2 - 1 + EPSILON)
    if radius is not None:
        row, column = (side[full - radius : full + radius + 1] for side in (row, column))
    h, w = computed.shape[-2:]
    if h + w <= BANDED_SIDES:
        filled: Tensor = _banded(column, h) @ computed @ _banded(row, w)
        return filled
    c, reach = computed.shape[1], len(row) // 2
    across = row.view(1, 1, 1, -1).expand(c, -1, -1, -1)
    down = column.view(1, 1, -1, 1).expand(c, -1, -1, -1)
    maps = F.conv2d(computed, across, padding=(0, reach), groups=c)
    return F.conv2d(maps, down, padding=(reach, 0), groups=c)


def reach_of(scale: float, eps: float) -> int:
    """How far the kernel reaches before its weights vanish beside ``eps``, a type's precision."""
    side = _taps(torch.tensor(scale, dtype=torch.float64), size_of_fill() // 2)
    middle = len(side) // 2
    total = float(side.sum() ** 2 - 1)
    for radius in range(1, middle):
        kept = float(side[middle - radius : middle + radius + 1].sum() ** 2 - 1)
        if total - kept <= eps * total:
            return radius
    return middle


def _taps(scale: Tensor, radius: int) -> Tensor:
    return torch.exp(-(scale.reshape(()) ** 2) * _squares(radius, scale.device, scale.dtype))


def _banded(taps: Tensor, side: int) -> Tensor:
    """The matrix (side, side) whose product is the correlation with symmetric taps."""
    return F.pad(taps, (0, 1))[_bands(side, len(taps), taps.device)]


@functools.cache
def _bands(side: int, taps: int, device: torch.device) -> Tensor:
    """Which tap stands at each place of a banded matrix; one more than there are for none."""
    with torch.inference_mode(False):  # training may find what an evaluation has made
        offsets = torch.arange(side, device=device)
        distance = (offsets[:, None] - offsets[None, :]).abs()
        return (taps // 2 + distance).clamp(max=taps)


@functools.cache
def _squares(radius: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(-radius, radius + 1, dtype=dtype, device=device) ** 2
