"""Which rows of a map a masked convolution reads and writes.

A map (N, C, h, w) in channels-last layout is a matrix of positions: (N * h * w, C), and a row of it
one position. All indices here are of such rows, and on the mask's device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.segment import SizedMask

# On maps of fewer positions, all images together, finding out where to compute takes longer than
# computing (measured).
FEWEST_POSITIONS = 2048


def is_small(mask: SizedMask) -> bool:
    """Whether a map has too few positions to be computed in parts."""
    return mask.active.numel() < FEWEST_POSITIONS


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


@dataclass(frozen=True)
class Reads:
    """Rows to read in order, and which of them (counted in this order) lie outside of the map."""

    rows: Tensor
    outside: Tensor

    def gather(self, matrix: Tensor, elsewhere: Tensor | float = 0.0) -> Tensor:
        """The rows of (positions, C), ``elsewhere`` where they lie outside."""
        found = matrix.index_select(0, self.rows)
        if len(self.outside):
            found[self.outside] = elsewhere
        return found


@dataclass(frozen=True)
class Tiles:
    """Square tiles that hold all computed positions, and a border of what these read.

    Args:
        reads: the input's rows, tile by tile.
        count: of tiles.
        side: of the input's tiles, in positions.
        inside: of the tiles' output rows, those to keep.
        rows: the output's rows that these are.
    """

    reads: Reads
    count: int
    side: int
    inside: Tensor
    rows: Tensor


def positions(mask: SizedMask) -> Tensor:
    """The output's rows that are computed."""
    return mask.derive("positions", lambda: mask.active.flatten().nonzero().flatten())


def window_reads(mask: SizedMask, size: tuple[int, int], geometry: Geometry) -> Reads:
    """What each computed position reads of an input of this height and width, tap by tap."""

    def make() -> Reads:
        image, row, column = coordinates(positions(mask), mask)
        taps = torch.arange(geometry.kernel, device=row.device) * geometry.dilation
        rows = (row * geometry.stride - geometry.padding)[:, None] + taps
        columns = (column * geometry.stride - geometry.padding)[:, None] + taps
        return _reads(image[:, None, None], rows[:, :, None], columns[:, None, :], size)

    return mask.derive(("window", size, geometry), make)


def tile_side(mask: SizedMask) -> int:
    """Of a map's tiles, in positions: coarse ones on large maps; ours."""
    return 16 if min(mask.active.shape[-2:]) >= 64 else 8


def active_tiles(mask: SizedMask) -> Tensor:
    """Which tiles hold a computed position: (tiles, 3), image, row and column of each."""

    def make() -> Tensor:
        pooled = F.max_pool2d(mask.active.float(), tile_side(mask), ceil_mode=True)
        return pooled[:, 0].nonzero()

    return mask.derive("tiles", make)


def tile_share(mask: SizedMask) -> float:
    """The tiles' share of the map, which may be above 1 for maps smaller than a tile."""
    n, _, h, w = mask.active.shape
    return len(active_tiles(mask)) * tile_side(mask) ** 2 / (n * h * w)


def tiles(mask: SizedMask, size: tuple[int, int], geometry: Geometry) -> Tiles:
    """The tiles of a convolution's output, on an input of this height and width."""

    def make() -> Tiles:
        side = tile_side(mask)
        image, down, right = active_tiles(mask).unbind(1)
        row, column = down * side, right * side
        reach = (side - 1) * geometry.stride + (geometry.kernel - 1) * geometry.dilation + 1
        steps = torch.arange(reach, device=row.device)
        rows = (row * geometry.stride - geometry.padding)[:, None] + steps
        columns = (column * geometry.stride - geometry.padding)[:, None] + steps
        reads = _reads(image[:, None, None], rows[:, :, None], columns[:, None, :], size)
        inner = torch.arange(side, device=row.device)
        out_rows, out_columns = row[:, None] + inner, column[:, None] + inner
        out = (mask.active.shape[-2], mask.active.shape[-1])
        writes = _reads(image[:, None, None], out_rows[:, :, None], out_columns[:, None, :], out)
        wanted = mask.active.flatten()[writes.rows]
        wanted[writes.outside] = False
        inside = wanted.nonzero().flatten()
        return Tiles(reads, len(row), reach, inside, writes.rows[inside])

    return mask.derive(("tiled", size, geometry), make)


@dataclass(frozen=True)
class Border:
    """Skipped rows with a computed one near, and what surrounds them.

    Args:
        rows: the skipped rows.
        around: the row at each offset of the fill's square, offset by offset: first that of every
            skipped row at the first offset. The square's middle is left out.
    """

    rows: Tensor
    around: Reads


def border(mask: SizedMask, radius: int) -> Border:
    """What a fill that reaches ``radius`` positions writes and reads."""

    def make() -> Border:
        side = 2 * radius + 1
        near = F.max_pool2d(mask.active.float(), side, 1, radius).bool() & ~mask.active
        rows = near.flatten().nonzero().flatten()
        image, row, column = coordinates(rows, mask)
        offset = torch.arange(side**2, device=row.device)
        offset = offset[offset != side**2 // 2]
        size = (mask.active.shape[-2], mask.active.shape[-1])
        down, right = offset // side - radius, offset % side - radius
        return Border(rows, _reads(image, row + down[:, None], column + right[:, None], size))

    return mask.derive(("border", radius), make)


def skipped(mask: SizedMask) -> Tensor:
    """The output's rows that are not computed."""
    return mask.derive("skipped", lambda: (~mask.active).flatten().nonzero().flatten())


def inverse(mask: SizedMask, dtype: torch.dtype) -> Tensor:
    """1 at skipped positions and 0 at computed ones, (N, 1, h, w)."""
    return mask.derive(("inverse", dtype), lambda: (~mask.active).to(dtype))


def coordinates(rows: Tensor, mask: SizedMask) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of rows of a map of the mask's size."""
    h, w = mask.active.shape[-2:]
    return rows // (h * w), rows // w % h, rows % w


def _reads(image: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Reads:
    h, w = size
    outside = (row < 0) | (row >= h) | (column < 0) | (column >= w)
    rows = (image * h + row.clamp(0, h - 1)) * w + column.clamp(0, w - 1)
    return Reads(rows.flatten(), outside.flatten().nonzero().flatten())
