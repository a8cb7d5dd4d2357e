"""``digit-canvas`` and ``digit-signs``, ``:SIZE,TRAIN,VAL``: digits on cluttered photographs,
embedded.

They are made from scikit-learn's scans and photographs, so nothing is downloaded. A canvas shows
one to three whole digits that do not overlap, over fragments of smaller digits, over a dark piece
of a photograph. The ink of a whole digit has its class, all else is background: 11 classes. On
signs each whole digit is on a round plate, and the plate has its class: a region that is large
enough for a map of 1/32 of the canvas, and whose edge can only be classified by reading the digit.
Plates without a digit are background.

A canvas is a pure function of its part and index. All its digits are by one writer. Validation uses
separate writers and halves of photographs. With ``,tune`` at the end, or ``:tune`` alone, it uses
two of the training writers and the lower part of the training half instead: for model selection.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.data.dataset import DatasetPair, MemoryImages, digest, padded_side
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.digits import (
    PHOTOGRAPHS,
    open_digits,
    part_mask,
    read_photograph,
    writers,
)
from convnext_study.data.sources.synthetic import Draw, Scenes, draw_int, paint, scene_sizes

DEFAULTS = (64, 2000, 400)  # side of a canvas in pixels, training and validation canvases
SIGNS = (128, 1000, 200)
PLATE = (0.25, 0.6)  # range of each channel of a plate's colour
EMPTY = (0, 2)  # range of the number of plates without a digit
SIDES = (32, 256)  # from legible digits up to what fits into half of a photograph
TUNE, UPPER = "tune", 208  # upper rows of a photograph to train on if the others are for tuning
DIGITS, FRAGMENTS = (1, 3), (0, 3)  # ranges of their numbers
PLACE = 20  # attempts to place a digit
SCAN = (3 / 8, 1 / 2)  # side of a scan, as a fraction of the canvas's
INK = 0.4  # fraction of the darkest ink from which a pixel belongs to the digit
BRIGHT = (0.75, 1.0)  # range of each channel of a digit's colour
PHOTO = 0.3  # factor of a photograph's brightness
BACKGROUND = "background"


@dataclass(frozen=True)
class Canvases(Scenes):
    """Canvases from scans (N, 32, 32) with classes and writers, and from photographs; writers take
    turns."""

    noise = 0.05

    scans: Tensor
    digits: Tensor
    writers: Tensor
    photos: tuple[Tensor, ...]

    @property
    def plates(self) -> bool:
        """Whether digits are on plates."""
        return self.kind == "digit-signs"

    @cached_property
    def _scans_of(self) -> dict[int, Tensor]:
        """The indices of each writer's scans; canvases use the writers in this order."""
        present = sorted(set(self.writers.tolist()))
        return {writer: (self.writers == writer).nonzero().flatten() for writer in present}

    def groups(self) -> Tensor:
        """(count,) int64: the writer of each canvas's digits."""
        return torch.tensor([*islice(cycle(self._scans_of), self.count)])

    def render(self, index: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """A canvas, (3, side, side), and its labels, (side, side) uint8."""
        image = self._photograph(draw)
        scans = [*self._scans_of.values()][index % len(self._scans_of)]
        for _ in range(draw_int(draw, *FRAGMENTS)):
            self._fragment(image, scans, draw)
        labels = torch.zeros(self.side, self.side, dtype=torch.uint8)
        taken: list[tuple[int, int, int]] = []
        for _ in range(draw_int(draw, *DIGITS)):
            self._digit(image, labels, taken, scans, draw)
        for _ in range(draw_int(draw, *EMPTY) if self.plates else 0):
            if (place := self._place(taken, self._scan(scans, draw)[1], draw)) is not None:
                _paint(_square(image, place), _disc(place[2]), draw, PLATE)
        return image, labels

    def digests(self) -> dict[str, str]:
        """Of the canvases' inputs, not of pixels, whose last bits may differ between machines."""
        parameters = (self.part, self.side, self.count, DIGITS, FRAGMENTS, PLACE, SCAN, INK, BRIGHT)
        signs = (PLATE, EMPTY) if self.plates else ()
        constants = repr((*parameters, PHOTO, self.noise, *signs)).encode()
        return {"content": digest(constants, self.scans.numpy(), self.digits.numpy())}

    def _photograph(self, draw: Draw) -> Tensor:
        photo = self.photos[draw_int(draw, 0, len(self.photos) - 1)]
        top, left = (draw_int(draw, 0, extent - self.side) for extent in photo.shape[1:])
        return photo[:, top : top + self.side, left : left + self.side] * PHOTO

    def _digit(
        self,
        image: Tensor,
        labels: Tensor,
        taken: list[tuple[int, int, int]],
        scans: Tensor,
        draw: Draw,
    ) -> None:
        """Add a digit that overlaps none of the places (top, left, side) taken, if possible."""
        index, side = self._scan(scans, draw)
        if (place := self._place(taken, side, draw)) is None:
            return
        ink = _resized(self.scans[index], side)
        region = ink > INK
        if self.plates:
            disc = _disc(side)
            region = disc > 1 / 2
            _paint(_square(image, place), disc, draw, PLATE)
            ink = ink * disc
        _paint(_square(image, place), ink, draw)
        _square(labels, place)[region] = 1 + int(self.digits[index])

    def _place(
        self, taken: list[tuple[int, int, int]], side: int, draw: Draw
    ) -> tuple[int, int, int] | None:
        """A free place for a square, which is added to ``taken``; None if none is found."""
        for _ in range(PLACE):
            top, left = (draw_int(draw, 0, self.side - side) for _ in range(2))
            if not any(_overlap((top, left, side), other) for other in taken):
                taken.append((top, left, side))
                return (top, left, side)
        return None

    def _fragment(self, image: Tensor, scans: Tensor, draw: Draw) -> None:
        """Add a quarter of a digit of half the size, anywhere."""
        index, side = self._scan(scans, draw)
        side, half = side // 2, side // 4
        top, left = (draw_int(draw, 0, side - half) for _ in range(2))
        ink = _resized(self.scans[index], side)[top : top + half, left : left + half]
        top, left = (draw_int(draw, 0, self.side - half) for _ in range(2))
        _paint(image[:, top : top + half, left : left + half], ink, draw)

    def _scan(self, scans: Tensor, draw: Draw) -> tuple[int, int]:
        """A random scan of the writer, and its side on the canvas."""
        side = draw_int(draw, round(SCAN[0] * self.side), round(SCAN[1] * self.side))
        return int(scans[draw_int(draw, 0, len(scans) - 1)]), side


def open_canvases(text: str, _: OpenRequest) -> DatasetPair:
    """The canvases that ``SIZE,TRAIN,VAL`` describes; omitted values have their defaults.

    Raises DataError if they are not integers in the valid range.
    """
    return _open("digit-canvas", text, DEFAULTS)


def open_signs(text: str, _: OpenRequest) -> DatasetPair:
    """As `open_canvases`, with plates."""
    return _open("digit-signs", text, SIGNS)


def _open(scheme: str, text: str, defaults: tuple[int, int, int]) -> DatasetPair:
    tuned = text.split(",")[-1] == TUNE
    bare, cap = (text.removesuffix(TUNE).removesuffix(","), UPPER) if tuned else (text, SIDES[1])
    side, train_count, val_count = scene_sizes(f"{scheme}:{text}", bare, defaults, (SIDES[0], cap))
    scans, writer_ids = open_digits(), torch.from_numpy(writers())
    held_out, tuning = (torch.from_numpy(part_mask(part)) for part in ("test", TUNE))

    def canvases(part: str, count: int, chosen: Tensor) -> Canvases:
        images = scans.val if part == "val" else scans.train
        assert isinstance(images, MemoryImages)  # noqa: S101  the embedded digits are
        indices = chosen[held_out if part == "val" else ~held_out]
        digits = (images.images[indices, 0], images.labels[indices], writer_ids[chosen])
        return Canvases(scheme, part, side, count, *digits, _photographs(part, tuned))

    train = canvases("train", train_count, ~(held_out | tuning) if tuned else ~held_out)
    val = canvases(*((TUNE, val_count, tuning) if tuned else ("val", val_count, held_out)))
    mean, std = train.statistics()
    return DatasetPair(
        classes=(BACKGROUND, *scans.classes),
        size=padded_side(side),
        shape=(side, side),
        mean=mean,
        std=std,
        train=train,
        val=val,
        flips=False,
        val_groups=val.groups(),
        val_once=val.plates and not tuned,
    )


@cache
def _photographs(part: str, tuned: bool = False) -> tuple[Tensor, ...]:
    """One half of each of scikit-learn's photographs, (3, 427, 320), from 0 to 1; for tuning, the
    upper or the lower rows of the training half."""
    photos = [torch.from_numpy(read_photograph(name)) / 255 for name in PHOTOGRAPHS]
    half = photos[0].shape[2] // 2
    if not tuned:
        return tuple(p[:, :, half:] if part == "val" else p[:, :, :half] for p in photos)
    return tuple(p[:, UPPER:, :half] if part == TUNE else p[:, :UPPER, :half] for p in photos)


def _resized(scan: Tensor, side: int) -> Tensor:
    """A resized scan's ink, (side, side) from 0 to 1."""
    ink = scan[None, None].float() / 255
    return F.interpolate(ink, size=(side, side), mode="bilinear", align_corners=False)[0, 0]


def _disc(side: int) -> Tensor:
    """A round plate, (side, side) from 0 to 1."""
    squared = (torch.arange(side) + 0.5 - side / 2) ** 2
    return (side / 2 - (squared[:, None] + squared[None, :]).sqrt() + 0.5).clamp(0, 1)


def _square(maps: Tensor, place: tuple[int, int, int]) -> Tensor:
    """The square of (..., h, w) at a place (top, left, side)."""
    top, left, side = place
    return maps[..., top : top + side, left : left + side]


def _paint(under: Tensor, ink: Tensor, draw: Draw, colours: tuple[float, float] = BRIGHT) -> None:
    """Paint ink of a random colour over (3, h, w), in place."""
    paint(under, ink, torch.tensor([draw(*colours) for _ in range(len(under))]))


def _overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    (top, left, side), (other_top, other_left, other_side) = a, b
    rows = top < other_top + other_side and other_top < top + side
    return rows and left < other_left + other_side and other_left < left + side
