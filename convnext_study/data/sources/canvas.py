"""``digit-canvas`` or ``digit-canvas:SIZE,TRAIN,VAL``: digits on cluttered photographs, embedded.

scikit-learn's real scans and photographs, so that nothing is downloaded. A canvas holds one to
three whole digits that do not overlap, over fragments of smaller digits, over a dark piece of a
photograph. The ink of a whole digit has its class, all else is background: 11 classes.

A canvas is a pure function of its part and index. All its digits are by one writer. Validation has
writers and halves of photographs of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.data.dataset import (
    DataError,
    DatasetPair,
    MemoryImages,
    channel_statistics,
    digest,
)
from convnext_study.data.masks import PADDED_TO
from convnext_study.data.rng import fold_in, generator
from convnext_study.data.sources import Opening
from convnext_study.data.sources.digits import (
    PHOTOGRAPHS,
    open_digits,
    part_mask,
    read_photograph,
    writers,
)
from convnext_study.data.sources.synthetic import MOST_IMAGES, whole_numbers

DEFAULTS = (64, 2000, 400)  # side of a canvas in pixels, training and validation canvases
SIDES = (32, 256)  # from a legible digit up to what fits into half of a photograph
DIGITS, FRAGMENTS = (1, 3), (0, 3)  # how many, from and to
PLACE = 20  # tries to find room for a digit
SCAN = (3 / 8, 1 / 2)  # side of a scan, of the canvas's
INK = 0.4  # of a scan's darkest: from here on a pixel is the digit's
BRIGHT = (0.75, 1.0)  # of each channel of a digit's colour
PHOTO = 0.3  # of a photograph's brightness
NOISE = 0.05  # standard deviation, of the range from black to white
MOST_DRAWS = 256  # more than a canvas needs: one each is slower
STATISTICS_FROM = 256  # canvases
BACKGROUND = "background"

Draw = Callable[[float, float], float]


@dataclass(frozen=True)
class Canvases:
    """``count`` canvases of (side, side), from scans (N, 32, 32) with classes and writers, and from
    photographs. Canvases take turns between the writers."""

    part: str
    side: int
    count: int
    scans: Tensor
    digits: Tensor
    writers: Tensor
    photos: tuple[Tensor, ...]

    def __len__(self) -> int:
        return self.count

    @cached_property
    def _scans_of(self) -> dict[int, Tensor]:
        """The numbers of each writer's scans; canvases take turns in this order."""
        present = sorted(set(self.writers.tolist()))
        return {writer: (self.writers == writer).nonzero().flatten() for writer in present}

    def groups(self) -> Tensor:
        """(count,) int64: the writer of each canvas's digits."""
        return torch.tensor([*islice(cycle(self._scans_of), self.count)])

    def pixels(self, index: int) -> tuple[Tensor, Tensor]:
        """A canvas, (3, side, side) uint8, and its labels, (side, side) uint8."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        draws = generator(fold_in(0, "digit-canvas", self.part, self.side, index))

        uniform: Iterator[float] = iter(torch.rand(MOST_DRAWS, generator=draws).tolist())

        def draw(low: float, high: float) -> float:
            return low + (high - low) * next(uniform)

        image = self._photograph(draw)
        scans = [*self._scans_of.values()][index % len(self._scans_of)]
        for _ in range(_whole(draw, *FRAGMENTS)):
            self._fragment(image, scans, draw)
        labels = torch.zeros(self.side, self.side, dtype=torch.uint8)
        taken: list[tuple[int, int, int]] = []
        for _ in range(_whole(draw, *DIGITS)):
            self._digit(image, labels, taken, scans, draw)
        image += NOISE * torch.randn(image.shape, generator=draws)
        return (255 * image.clamp(0, 1)).round().to(torch.uint8), labels

    def digests(self) -> dict[str, str]:
        """Of what canvases are made from: their last bits may differ between machines."""
        made = (self.part, self.side, self.count, DIGITS, FRAGMENTS, PLACE, SCAN, INK, BRIGHT)
        constants = repr((*made, PHOTO, NOISE)).encode()
        return {"content": digest(constants, self.scans.numpy(), self.digits.numpy())}

    def _photograph(self, draw: Draw) -> Tensor:
        photo = self.photos[_whole(draw, 0, len(self.photos) - 1)]
        top, left = (_whole(draw, 0, extent - self.side) for extent in photo.shape[1:])
        return photo[:, top : top + self.side, left : left + self.side] * PHOTO

    def _digit(
        self,
        image: Tensor,
        labels: Tensor,
        taken: list[tuple[int, int, int]],
        scans: Tensor,
        draw: Draw,
    ) -> None:
        """One digit beside those whose places (top, left, side) are taken, where there is room."""
        index, side = self._scan(scans, draw)
        for _ in range(PLACE):
            top, left = (_whole(draw, 0, self.side - side) for _ in range(2))
            if not any(_overlap((top, left, side), other) for other in taken):
                break
        else:
            return
        taken.append((top, left, side))
        ink = _resized(self.scans[index], side)
        rows, columns = slice(top, top + side), slice(left, left + side)
        _paint(image[:, rows, columns], ink, draw)
        labels[rows, columns][ink > INK] = 1 + int(self.digits[index])

    def _fragment(self, image: Tensor, scans: Tensor, draw: Draw) -> None:
        """A quarter of a digit of half the size, anywhere."""
        index, side = self._scan(scans, draw)
        side, half = side // 2, side // 4
        top, left = (_whole(draw, 0, side - half) for _ in range(2))
        ink = _resized(self.scans[index], side)[top : top + half, left : left + half]
        top, left = (_whole(draw, 0, self.side - half) for _ in range(2))
        _paint(image[:, top : top + half, left : left + half], ink, draw)

    def _scan(self, scans: Tensor, draw: Draw) -> tuple[int, int]:
        """Which of the writer's scans, and its side on the canvas."""
        side = _whole(draw, round(SCAN[0] * self.side), round(SCAN[1] * self.side))
        return int(scans[_whole(draw, 0, len(scans) - 1)]), side


def open_canvases(text: str, _: Opening) -> DatasetPair:
    """The canvases that ``SIZE,TRAIN,VAL`` describes; what is left out has its default.

    Raises DataError where they are not whole numbers that can be had.
    """
    side, train_count, val_count = _numbers(text)
    scans, held_out = open_digits(), torch.from_numpy(part_mask("test"))
    parts = {}
    for part, count, images, chosen in (
        ("train", train_count, scans.train, ~held_out),
        ("val", val_count, scans.val, held_out),
    ):
        assert isinstance(images, MemoryImages)  # noqa: S101  the embedded digits are
        grey, authors = images.images[:, 0], torch.from_numpy(writers())[chosen]
        parts[part] = Canvases(part, side, count, grey, images.labels, authors, _photographs(part))
    some = [parts["train"].pixels(index)[0] for index in range(min(train_count, STATISTICS_FROM))]
    mean, std = channel_statistics(torch.stack(some))
    return DatasetPair(
        classes=(BACKGROUND, *scans.classes),
        size=-(-side // PADDED_TO) * PADDED_TO,
        shape=(side, side),
        mean=mean,
        std=std,
        train=parts["train"],
        val=parts["val"],
        flips=False,
        val_groups=parts["val"].groups(),
    )


@cache
def _photographs(part: str) -> tuple[Tensor, ...]:
    """One half of each of scikit-learn's photographs, (3, 427, 320), from 0 to 1."""
    photos = [torch.from_numpy(read_photograph(name)) / 255 for name in PHOTOGRAPHS]
    half = photos[0].shape[2] // 2
    return tuple(one[:, :, :half] if part == "train" else one[:, :, half:] for one in photos)


def _resized(scan: Tensor, side: int) -> Tensor:
    """A scan's ink, (side, side) from 0 to 1."""
    ink = scan[None, None].float() / 255
    return F.interpolate(ink, size=(side, side), mode="bilinear", align_corners=False)[0, 0]


def _paint(under: Tensor, ink: Tensor, draw: Draw) -> None:
    """Ink of a colour that is drawn, over (3, h, w), in place."""
    colour = torch.tensor([draw(*BRIGHT) for _ in range(len(under))])
    under.lerp_(colour.view(-1, 1, 1).expand_as(under), ink.expand_as(under))


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    (top, left, side), (other_top, other_left, other_side) = one, other
    rows = top < other_top + other_side and other_top < top + side
    return rows and left < other_left + other_side and other_left < left + side


def _whole(draw: Draw, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return min(int(draw(low, high + 1)), high)


def _numbers(text: str) -> tuple[int, int, int]:
    numbers = whole_numbers(text, DEFAULTS)
    side, train, val = numbers or (0, 0, 0)
    if (
        not SIDES[0] <= side <= SIDES[1]
        or not 1 <= min(train, val) <= max(train, val) <= MOST_IMAGES
    ):
        raise DataError(
            f"data 'digit-canvas:{text:.99}': needs whole numbers, as in "
            f"digit-canvas:{','.join(map(str, DEFAULTS))} (side from {SIDES[0]} to {SIDES[1]}, "
            f"training and validation canvases up to {MOST_IMAGES:,})"
        )
    return side, train, val
