"""Random numbers for many images at once, each image's own: a function of (key, image, draw).

A generator for every image would cost more than the image. These are SplitMix64 (Steele, Lea &
Flood, 2014) at a counter, in whole numbers: the same on every machine and however images are
grouped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_STREAM_BITS = 12  # so many draws for an image, in powers of two, before the next image's begin
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST, _HALF = np.uint64(31), np.uint64(32)


class Draws:
    """The draws of some images, one after another.

    Args:
        key: of 63 bits, what all of these images have in common.
        images: (n,) their numbers.
        most: how many draws are taken of each image at most.
    """

    def __init__(self, key: int, images: Integers, most: int) -> None:
        counters = (images << _STREAM_BITS)[:, None] + np.arange(1, most + 1)
        bits = counters.astype(np.uint64) * _GOLDEN + np.uint64(key)
        for shift, factor in _ROUNDS:
            bits ^= bits >> shift
            bits *= factor
        bits ^= bits >> _LAST
        self._bits = (bits >> _HALF).astype(np.int64)
        self._taken = 0

    def integers(self, low: int | Integers, high: int | Integers, count: int = 1) -> Integers:
        """(n, count) numbers from ``low`` to below ``high``, each as likely up to 2^-32."""
        first, self._taken = self._taken, self._taken + count
        if self._taken > self._bits.shape[1]:
            raise IndexError(f"{self._taken} draws of each image; {self._bits.shape[1]} were made")
        return low + (self._bits[:, first : self._taken] * (high - low) >> np.int64(32))
