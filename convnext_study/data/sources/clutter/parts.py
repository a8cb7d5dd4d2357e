"""What images are composed from, in three parts that share no writer and no texture.

Every writer of scans, and every strip of a photograph, belongs to one part for good. The strips
are of the same two photographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from convnext_study.data.sources.digits import (
    PHOTOGRAPHS,
    part_mask,
    read_photograph,
    read_scans,
    writers,
)

Integers = npt.NDArray[np.int64]

# Strips of 128 columns: eight of the blocks that JPEG compresses by, so that none is in two.
_STRIPS, STRIP_WIDTH = ("train", "test", "train", "tune", "test"), 128

SCAN = 8  # pixels a side
CELL = 6  # pixels a side that a pixel of a scan is drawn up to
SIDE = (SCAN + 2) * CELL  # of a drawn scan, with one scanned pixel's margin
OPAQUE_BITS = 7  # of ink: with a level of 255 it makes 15 bits


@dataclass(frozen=True)
class Part:
    """One part's scans and texture.

    Args:
        scans: (n,) numbers of the scans in scikit-learn's table.
        writers: (n,) who wrote them.
        labels: (n,) their digits.
        ink: (n, SIDE, SIDE) uint8, the scans drawn up smoothly, from 0 to OPAQUE_BITS bits.
        texture: (strips, 3, H, STRIP_WIDTH) uint8, pieces of photographs.
        strips: of each, the photograph and its first column there.
    """

    scans: Integers
    writers: Integers
    labels: Integers
    ink: npt.NDArray[np.uint8]
    texture: npt.NDArray[np.uint8]
    strips: tuple[tuple[str, int], ...]


@cache
def read_part(name: str) -> Part:
    """The part ``train``, ``tune`` or ``test``. Raises DataError where scikit-learn's are not."""
    scans, labels = read_scans()
    chosen = np.flatnonzero(part_mask(name))
    strips = tuple(
        (photograph, place * STRIP_WIDTH)
        for photograph in PHOTOGRAPHS
        for place, part in enumerate(_STRIPS)
        if part == name
    )
    cut = [read_photograph(one)[:, :, first : first + STRIP_WIDTH] for one, first in strips]
    ink = draw_up(scans[chosen].astype(np.int64))
    return Part(chosen, writers()[chosen], labels[chosen], ink, np.stack(cut), strips)


def draw_up(scans: Integers) -> npt.NDArray[np.uint8]:
    """Scans (n, 8, 8) of 0 to 16, interpolated between the centres of their pixels."""
    padded = np.pad(scans, ((0, 0), (1, 1), (1, 1)))
    # Twice the distance of each drawn pixel's centre from each scanned one's, in drawn pixels.
    drawn, scanned = 2 * np.arange(SIDE) + 1, CELL * (2 * np.arange(padded.shape[1]) + 1)
    weights = np.maximum(2 * CELL - np.abs(drawn[:, None] - scanned), 0)
    ink: Integers = weights @ padded @ weights.T * (2**OPAQUE_BITS - 1)
    return (ink // (16 * (2 * CELL) ** 2)).astype(np.uint8)
