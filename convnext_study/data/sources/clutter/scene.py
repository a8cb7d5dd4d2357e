"""Compose images from scans and texture, a batch at a time and in integer arithmetic.

An image is texture, then pieces of other scans, then the scan that it shows, each with a random
position, size, rotation, brightness and colour. Integers give the same bits on every machine and in
every batch: no step combines several images.

Scans and texture are in three fixed parts that share no writer and no strip of a photograph. All
strips are of the same two photographs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from convnext_study.data.sources.digits import (
    PHOTOGRAPHS,
    part_mask,
    read_photograph,
    read_scans,
    writers,
)

Integers = npt.NDArray[np.int64]

# Strips of 128 columns, a multiple of JPEG's blocks, so that no block is in two strips.
_STRIPS, STRIP_WIDTH = ("train", "test", "train", "tune", "test"), 128

SCAN = 8  # side in pixels
CELL = 6  # upscaling of a scan: side in pixels of one scanned pixel
SIDE = (SCAN + 2) * CELL  # of an upscaled scan, with a margin of one scanned pixel
OPAQUE_BITS = 7  # of ink: multiplied by a level of 255 it takes 15 bits


@dataclass(frozen=True)
class Part:
    """One part's scans and texture.

    Args:
        scans: (n,) indices of the scans in scikit-learn's table.
        writers: (n,) their writers.
        labels: (n,) their digits.
        ink: (n, SIDE, SIDE) uint8, the scans upscaled smoothly, from 0 to OPAQUE_BITS bits.
        texture: (strips, 3, H, STRIP_WIDTH) uint8, pieces of photographs.
        strips: for each, the photograph and its first column there.
    """

    scans: Integers
    writers: Integers
    labels: Integers
    ink: npt.NDArray[np.uint8]
    texture: npt.NDArray[np.uint8]
    strips: tuple[tuple[str, int], ...]


@cache
def read_part(name: str) -> Part:
    """The part ``train``, ``tune`` or ``test``. Raises DataError if scikit-learn is missing."""
    scans, labels = read_scans()
    chosen = np.flatnonzero(part_mask(name))
    strips = tuple(
        (photograph, place * STRIP_WIDTH)
        for photograph in PHOTOGRAPHS
        for place, part in enumerate(_STRIPS)
        if part == name
    )
    texture = [read_photograph(name)[:, :, first : first + STRIP_WIDTH] for name, first in strips]
    ink = upscale(scans[chosen].astype(np.int64))
    return Part(chosen, writers()[chosen], labels[chosen], ink, np.stack(texture), strips)


def upscale(scans: Integers) -> npt.NDArray[np.uint8]:
    """Upscale scans (n, 8, 8) of 0 to 16, interpolating between the centres of their pixels."""
    padded = np.pad(scans, ((0, 0), (1, 1), (1, 1)))
    # Twice the distance between the centres of drawn and scanned pixels, in drawn pixels.
    drawn, scanned = 2 * np.arange(SIDE) + 1, CELL * (2 * np.arange(padded.shape[1]) + 1)
    weights = np.maximum(2 * CELL - np.abs(drawn[:, None] - scanned), 0)
    ink: Integers = weights @ padded @ weights.T * (2**OPAQUE_BITS - 1)
    return (ink // (16 * (2 * CELL) ** 2)).astype(np.uint8)


SIZE = 32  # side in pixels
PIECE = 12  # side in pixels of the window through which a piece of clutter is visible
FINE = 16  # subdivisions of a pixel, and of the texture's contrast
GREY, TINT, INK_TINT = (96, 160), 24, 32  # of 255: a texture's brightness, largest tints

TURN = 4096  # angles in a full turn
_ANGLES = [2 * math.pi * angle / TURN for angle in range(TURN)]
_ONE = 14  # fractional bits of a sine
_COSINE = np.array([round(math.cos(angle) * 2**_ONE) for angle in _ANGLES])
_SINE = np.array([round(math.sin(angle) * 2**_ONE) for angle in _ANGLES])
# Fractional bits of a position in a drawn scan. With 7, scans from SMALLEST pixels up to the size
# of an image stay within 16 bits, which are the fastest.
_POINT = 7
SMALLEST = 10
_DRAWS, _DRAWS_PER_PIECE = 17, 12

_STREAM_BITS = 12  # log2 of the counters reserved for each image's draws
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST, _HALF = np.uint64(31), np.uint64(32)

Pixels = npt.NDArray[np.int16]


class Draws:
    """The random draws of some images, in sequence: a function of (key, image, draw).

    A generator per image would cost more than the image. These are SplitMix64 (Steele, Lea &
    Flood, 2014) of a counter, in integers: the same on every machine and however images are
    grouped.

    Args:
        key: of 63 bits, the same for all of these images.
        images: (n,) their numbers.
        most: the largest number of draws per image.
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
        """(n, count) integers from ``low`` to below ``high``, uniform up to 2^-32."""
        first, self._taken = self._taken, self._taken + count
        if self._taken > self._bits.shape[1]:
            raise IndexError(f"{self._taken} draws per image, but {self._bits.shape[1]} were made")
        return low + (self._bits[:, first : self._taken] * (high - low) >> np.int64(32))


@dataclass(frozen=True)
class Scene:
    """The difficulty of images. Ranges are the smallest and the largest value.

    Args:
        pieces: of clutter per image.
        size: side of a scan in pixels, from SMALLEST to SIZE.
        turn: largest rotation of the scan in either direction, in degrees.
        contrast: of the scan to the brightness of the texture, in levels of 255.
        clutter: the same for a piece of clutter.
        texture: contrast of the texture, as a multiple of the photograph's.
    """

    pieces: int
    size: tuple[int, int]
    turn: int
    contrast: tuple[int, int]
    clutter: tuple[int, int]
    texture: tuple[float, float]


def compose(scene: Scene, part: Part, shown: Integers, key: int, images: Integers) -> Pixels:
    """Images (n, 3, SIZE, SIZE) of 0 to 255.

    Args:
        scene: their difficulty.
        part: scans and texture to compose from.
        shown: (n,) the index in ``part`` of the scan that each image shows.
        key: the draws for an image depend on it and on the image's number.
        images: (n,) their numbers.
    """
    draws = Draws(key, images, _DRAWS + _DRAWS_PER_PIECE * scene.pieces)
    canvas, grey = _texture(scene, part, draws)
    _add_clutter(canvas, grey, scene, part, draws)
    _add_scan(canvas, grey, scene, part, draws, shown)
    return canvas


def _texture(scene: Scene, part: Part, draws: Draws) -> tuple[Pixels, Integers]:
    """Crops of the photographs with mean brightness (n, 1), which is returned too."""
    strips, _, height, width = part.texture.shape
    strip = draws.integers(0, strips)[:, 0]
    top = draws.integers(0, height - SIZE + 1)[:, 0]
    left = draws.integers(0, width - SIZE + 1)[:, 0]
    windows = sliding_window_view(part.texture, (SIZE, SIZE), axis=(2, 3))
    # In C order: indexing puts the channels last, which would slow all later steps down.
    canvas = windows[strip, :, top, left].astype(np.int16, order="C")
    low, high = (round(contrast * FINE) for contrast in scene.texture)
    contrast, grey = draws.integers(low, high + 1), draws.integers(*GREY)
    brightness = grey + draws.integers(-TINT, TINT + 1, 3)
    mean = canvas.reshape(len(canvas), 3, -1).sum(2, dtype=np.int32) // SIZE**2
    canvas -= mean.astype(np.int16)[:, :, None, None]
    canvas *= contrast.astype(np.int16)[:, :, None, None]
    canvas //= FINE
    canvas += brightness.astype(np.int16)[:, :, None, None]
    return np.clip(canvas, 0, 255, out=canvas), grey


def _add_clutter(canvas: Pixels, grey: Integers, scene: Scene, part: Part, draws: Draws) -> None:
    """Add pieces of any of the part's scans, in windows that fade out."""
    count = scene.pieces
    scan = draws.integers(0, len(part.scans), count)
    size, angle = _sizes(scene, draws, count), draws.integers(0, TURN, count)
    # So far from the window's centre that only a piece is visible.
    down, right = (draws.integers(-PIECE * FINE // 2, PIECE * FINE // 2, count) for _ in range(2))
    top, left = (draws.integers(0, SIZE - PIECE + 1, count) for _ in range(2))
    colours = _colours(grey, scene.clutter, draws, count)
    place = _scan_pixels(size.ravel(), angle.ravel(), down.ravel(), right.ravel(), PIECE)
    ink = _ink(part, scan.ravel(), place).reshape(len(canvas), count, PIECE, PIECE)
    ink *= _FADING
    ink >>= OPAQUE_BITS
    windows = sliding_window_view(canvas, (PIECE, PIECE), axis=(2, 3), writeable=True)
    images = np.arange(len(canvas))
    for piece in range(count):
        where = images, slice(None), top[:, piece], left[:, piece]
        windows[where] = _blend(ink[:, piece], colours[:, piece], windows[where])


def _add_scan(
    canvas: Pixels, grey: Integers, scene: Scene, part: Part, draws: Draws, shown: Integers
) -> None:
    """Add the scan that an image shows, inside the image except for rotated corners."""
    size = _sizes(scene, draws, 1)
    furthest = scene.turn * TURN // 360
    angle = draws.integers(-furthest, furthest + 1)[:, 0]
    room = (SIZE * FINE - size) // 2
    down, right = (draws.integers(-room, room + 1)[:, 0] for _ in range(2))
    colour = _colours(grey, scene.contrast, draws, 1)[:, 0]
    ink = _ink(part, shown, _scan_pixels(size[:, 0], angle, down, right, SIZE))
    canvas[:] = _blend(ink.reshape(len(canvas), SIZE, SIZE), colour, canvas)


def _sizes(scene: Scene, draws: Draws, count: int) -> Integers:
    """(n, count) sides in fractions of a pixel (see FINE)."""
    return draws.integers(scene.size[0] * FINE, scene.size[1] * FINE + 1, count)


def _colours(grey: Integers, contrast: tuple[int, int], draws: Draws, count: int) -> Pixels:
    """(n, count, 3), lighter or darker than grey (n, 1) and slightly tinted."""
    step = draws.integers(contrast[0], contrast[1] + 1, count)
    sign = 2 * draws.integers(0, 2, count) - 1
    tint = draws.integers(-INK_TINT, INK_TINT + 1, 3 * count).reshape(len(grey), count, 3)
    return np.clip((grey + sign * step)[:, :, None] + tint, 0, 255).astype(np.int16)


def _scan_pixels(
    size: Integers, angle: Integers, down: Integers, right: Integers, side: int
) -> npt.NDArray[np.int16]:
    """The pixel of a drawn scan that each pixel of a window shows: (n, side * side), of SIDE**2.

    Args:
        size: (n,) of the scan in the window, in fractions of a pixel.
        angle: (n,) in units of 1 / TURN of a turn.
        down: (n,) from the window's centre to the scan's, in fractions of a pixel.
        right: (n,) the same.
        side: of the windows, in pixels.
    """
    ratio = SCAN * CELL * FINE << (_POINT + _ONE)  # drawn pixels per pixel of the window
    # Per half pixel, in which the centres of a window's pixels are integers.
    along, across = (ratio * of[angle] // size >> (2 * _ONE + 1) for of in (_COSINE, _SINE))
    middle, half = (SIDE << _POINT) // 2, FINE // 2
    offsets = 2 * np.arange(side, dtype=np.int16) - (side - 1)
    rows, columns = np.repeat(offsets, side), np.tile(offsets, side)
    coordinates: list[npt.NDArray[np.int16]] = []
    for by_row, by_column in ((along, across), (-across, along)):
        start = middle - (by_row * down + by_column * right) // half
        place = by_row.astype(np.int16)[:, None] * rows
        place += by_column.astype(np.int16)[:, None] * columns
        place += start.astype(np.int16)[:, None]
        place >>= _POINT
        coordinates.append(np.clip(place, 0, SIDE - 1, out=place))
    row, column = coordinates
    row *= SIDE
    row += column
    return row


def _ink(part: Part, scan: Integers, place: npt.NDArray[np.int16]) -> Pixels:
    """The ink at positions (n, k) of drawn scans (n,); OPAQUE_BITS bits are fully opaque."""
    ink: npt.NDArray[np.uint8] = part.ink.reshape(-1)
    return ink.take(place + (scan * SIDE**2)[:, None]).astype(np.int16)


def _blend(ink: Pixels, colour: Pixels, below: Pixels) -> Pixels:
    """Pixels (n, 3, h, w) as seen under ink (n, h, w) of a colour (n, 3)."""
    seen = colour[:, :, None, None] - below
    seen *= ink[:, None]
    seen >>= OPAQUE_BITS
    seen += below
    return seen


def _make_fading() -> Pixels:
    """(PIECE, PIECE): opaque in the centre, transparent at the edge and in the corners."""
    from_middle = (2 * np.arange(PIECE) - PIECE + 1) ** 2
    inside = PIECE**2 - from_middle[:, None] - from_middle
    opaque: Integers = np.clip(4 * inside, 0, PIECE**2) * 2**OPAQUE_BITS // PIECE**2
    return opaque.astype(np.int16)


_FADING = _make_fading()
