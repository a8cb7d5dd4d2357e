"""Which rows of a map a masked convolution reads and writes.

A map (N, C, h, w) in channels-last layout is a matrix of positions: (N * h * w, C), and a row of it
one position. All indices here are of such rows, and on the mask's device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.masks import ResizedMask

# On maps of fewer positions, all images together, finding out where to compute takes longer than
# computing (measured).
FEWEST_POSITIONS = 2048


def is_small(mask: ResizedMask) -> bool:
    """Whether a map has too few positions to be computed in parts."""
    return mask.active.numel() < FEWEST_POSITIONS


def as_matrix(x: Tensor) -> Tensor:
    """A map (N, C, h, w) as (N * h * w, C), a row for each position."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def size_of(x: Tensor) -> tuple[int, int]:
    """Height and width of a map."""
    return x.shape[-2], x.shape[-1]


class Geometry(NamedTuple):
    """How a convolution's output positions lie on its input, equal in both directions."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Geometry | None:
        """That of a convolution; None for one that cannot be computed in parts."""
        if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            return None
        pairs = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        if any(pair[0] != pair[1] for pair in pairs):
            return None
        return cls(*(pair[0] for pair in pairs))


class Reads(NamedTuple):
    """Rows to read in order, and which of them (counted in this order) lie outside of the map."""

    rows: Tensor
    outside: Tensor

    def gather(self, matrix: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        """The rows of (positions, C), ``elsewhere`` where they lie outside."""
        found = matrix.index_select(0, self.rows)
        if len(self.outside):
            found[self.outside] = elsewhere
        return found


def positions(mask: ResizedMask) -> Tensor:
    """The output's rows that are computed."""
    return mask.derive("positions", lambda: mask.active.flatten().nonzero().flatten())


def skipped(mask: ResizedMask) -> Tensor:
    """The output's rows that are not computed."""
    return mask.derive("skipped", lambda: (~mask.active).flatten().nonzero().flatten())


def inverse(mask: ResizedMask, dtype: torch.dtype) -> Tensor:
    """1 at skipped positions and 0 at computed ones, (N, 1, h, w)."""
    return mask.derive(("inverse", dtype), lambda: (~mask.active).to(dtype))


def coordinates(rows: Tensor, mask: ResizedMask) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of rows of a map of the mask's size."""
    h, w = size_of(mask.active)
    return rows // (h * w), rows // w % h, rows % w


def window_reads(mask: ResizedMask, size: tuple[int, int], geometry: Geometry) -> Reads:
    """What each computed position reads of an input of this height and width, tap by tap."""
    kernel, stride, padding, dilation = geometry

    def make() -> Reads:
        image, row, column = coordinates(positions(mask), mask)
        steps = torch.arange(kernel, device=row.device) * dilation - padding
        rows, columns = row[:, None] * stride + steps, column[:, None] * stride + steps
        return _reads(image[:, None, None], rows[:, :, None], columns[:, None, :], size)

    return mask.derive(("window", size, geometry), make)


class Border(NamedTuple):
    """Skipped rows with a computed one near, and what surrounds them.

    ``around`` has the row at each offset of the fill's square without its middle, offset by offset:
    first that of every skipped row at the first offset.
    """

    rows: Tensor
    around: Reads


def border(mask: ResizedMask, radius: int) -> Border:
    """What a fill that reaches ``radius`` positions writes and reads."""

    def make() -> Border:
        side = 2 * radius + 1
        near = F.max_pool2d(mask.active.float(), side, 1, radius).bool() & ~mask.active
        rows = near.flatten().nonzero().flatten()
        image, row, column = coordinates(rows, mask)
        offset = torch.arange(side**2, device=row.device)
        offset = offset[offset != side**2 // 2][:, None]
        down, right = offset // side - radius, offset % side - radius
        return Border(rows, _reads(image, row + down, column + right, size_of(mask.active)))

    return mask.derive(("border", radius), make)


def _reads(image: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Reads:
    h, w = size
    outside = (row < 0) | (row >= h) | (column < 0) | (column >= w)
    rows = (image * h + row.clamp(0, h - 1)) * w + column.clamp(0, w - 1)
    return Reads(rows.flatten(), outside.flatten().nonzero().flatten())
