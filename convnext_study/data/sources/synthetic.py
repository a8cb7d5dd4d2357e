"""``synthetic`` or ``synthetic:CLASSES,SIZE,COUNT``: images made on the fly, for benchmarks; and
the common base of rendered scenes.

Each class is a coarse random pattern; an image is its class's pattern, shifted, perhaps mirrored,
with noise. A small network learns it in a few epochs, and no file is ever read. An image is a pure
function of its index, the same on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.data.dataset import (
    DataError,
    DatasetPair,
    InMemoryDataset,
    channel_statistics,
    digest,
)
from convnext_study.data.rng import fold_in, generator
from convnext_study.data.sources import OpenRequest

DEFAULTS = (10, 32, 2048)  # classes, side in pixels, training images
HELD_OUT = 4  # training images per validation image, of which each class has at least one
CELLS = 6  # random cells along each side of a pattern, blurred into each other
BANK = 32  # noise images to choose from
PATTERN, NOISE = 45.0, 60.0  # standard deviations, in levels of 255
STATISTICS_FROM = 256  # images, if they are of 224 pixels or less
MOST_DRAWS = 256  # more than a scene needs: drawing them one by one is slower
MOST_IMAGES, MOST_DIGITS = 20_000_000, 10
MOST_NUMBERS = 2**28  # in all patterns and noise images, with several bytes each


@dataclass(frozen=True)
class SyntheticImages(InMemoryDataset):
    """``count`` images from ``first`` on: patterns (classes, 3, H, W) and noise (n, 3, H, W)."""

    patterns: torch.Tensor
    noise: torch.Tensor
    first: int
    count: int

    @property
    def labels(self) -> torch.Tensor:
        """Classes (count,), int64, in rotation."""
        return (self.first + torch.arange(self.count)) % len(self.patterns)

    def __len__(self) -> int:
        return self.count

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at (n,) indices: (n, 3, H, W) uint8."""
        return torch.stack([self._image(self.first + int(index)) for index in indices])

    def digests(self) -> dict[str, str]:
        """Of the images' parameters, not of pixels, whose last bits may differ between machines."""
        made_from = (*self.patterns.shape, self.first, self.count, CELLS, BANK, PATTERN, NOISE)
        return {"content": digest(repr(made_from).encode())}

    def _image(self, number: int) -> torch.Tensor:
        draw = fold_in(0, "synthetic", number)
        side = self.patterns.shape[-1]
        # The draws are the number's digits in a mixed base: a generator would be slower.
        draw, mirrored = divmod(draw, 2)
        draw, noise = divmod(draw, len(self.noise))
        draw, down = divmod(draw, side)
        draw, right = divmod(draw, side)
        draw, dy = divmod(draw, max(side // 8, 1))
        dx = draw % max(side // 8, 1)
        pattern = self.patterns[number % len(self.patterns)].roll((dy, dx), (1, 2))
        if mirrored:
            pattern = pattern.flip(2)
        return (pattern + self.noise[noise].roll((down, right), (1, 2))).clamp(0, 255).byte()


Draw = Callable[[float, float], float]  # a uniform draw from a low to a high number


@dataclass(frozen=True)
class Scenes(ABC):
    """``count`` scenes of (side, side), each a function of kind, part, side and index."""

    noise: ClassVar[float]  # standard deviation; 1 is the range from black to white

    kind: str
    part: str
    side: int
    count: int

    @abstractmethod
    def render(self, index: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """A scene without noise, (3, side, side) from 0 to 1, and its labels."""

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> tuple[Tensor, Tensor]:
        """A scene, (3, side, side) uint8, and its labels."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        draws = generator(fold_in(0, self.kind, self.part, self.side, index))
        uniform = iter(torch.rand(MOST_DRAWS, generator=draws).tolist())
        image, labels = self.render(index, lambda low, high: low + (high - low) * next(uniform))
        image += self.noise * torch.randn(image.shape, generator=draws)
        return (255 * image.clamp(0, 1)).round().to(torch.uint8), labels

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel over the first scenes."""
        first = range(min(self.count, STATISTICS_FROM))
        return channel_statistics(torch.stack([self.pixels(index)[0] for index in first]))


def paint(under: Tensor, ink: Tensor, colour: Tensor) -> None:
    """Blend ink (h, w) from 0 to 1, of a colour (3,), over (3, h, w), in place."""
    under.lerp_(colour.view(-1, 1, 1).expand_as(under), ink.expand_as(under))


def draw_int(draw: Draw, low: int, high: int) -> int:
    """A random integer from ``low`` to ``high``, both included."""
    return min(int(draw(low, high + 1)), high)


def scene_sizes(
    uri: str, text: str, defaults: tuple[int, int, int], sides: tuple[int, int]
) -> tuple[int, int, int]:
    """The side and the numbers of training and validation scenes in ``SIZE,TRAIN,VAL``, the
    ``text`` of a ``uri``; omitted values have their defaults. Raises DataError if they are not
    integers in the valid range."""
    side, train, val = whole_numbers(text, defaults) or (0, 0, 0)
    fits = sides[0] <= side <= sides[1] and 1 <= min(train, val) <= max(train, val) <= MOST_IMAGES
    if not fits:
        raise DataError(
            f"data '{uri:.120}': needs whole numbers, as in {uri.partition(':')[0]}:"
            f"{','.join(map(str, defaults))} (side from {sides[0]} to {sides[1]}, training and "
            f"validation images up to {MOST_IMAGES:,})"
        )
    return side, train, val


def open_synthetic(text: str, _: OpenRequest) -> DatasetPair:
    """The data set that ``CLASSES,SIZE,COUNT`` describes; omitted values have their defaults.

    Raises DataError if they are not positive integers, or need too much memory.
    """
    classes, size, count = _numbers(text)
    draw = generator(fold_in(0, "synthetic", classes, size))
    cells = torch.randn(classes, 3, CELLS, CELLS, generator=draw) * PATTERN
    cells = F.interpolate(cells, size=(size, size), mode="bicubic", align_corners=False)
    noise = torch.randn(BANK, 3, size, size, generator=draw) * NOISE
    # int16 fits every sum and halves the memory needed to make an image.
    patterns, noise = (127.5 + cells).round().short(), noise.round().short()
    train = SyntheticImages(patterns, noise, 0, count)
    probed = min(count, STATISTICS_FROM, max(STATISTICS_FROM * 224**2 // size**2, 1))
    mean, std = channel_statistics(train.at(torch.arange(probed)))
    return DatasetPair(
        classes=tuple(f"pattern{number}" for number in range(classes)),
        size=size,
        mean=mean,
        std=std,
        train=train,
        val=SyntheticImages(patterns, noise, count, max(count // HELD_OUT, classes)),
    )


def whole_numbers(text: str, defaults: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Up to three positive integers separated by commas, or None if the text is anything else;
    omitted values have their defaults."""
    words = text.split(",") if text else []
    valid = all(word.isascii() and word.isdecimal() and word.strip("0") for word in words)
    if len(words) > len(defaults) or not valid:
        return None
    # Numbers with more digits are too large in any case.
    numbers = [int(word) if len(word) < MOST_DIGITS else 10**MOST_DIGITS for word in words]
    numbers += defaults[len(words) :]
    return numbers[0], numbers[1], numbers[2]


def _numbers(text: str) -> tuple[int, int, int]:
    numbers = whole_numbers(text, DEFAULTS)
    if numbers is None:
        raise DataError(
            f"data 'synthetic:{text:.99}': needs positive whole numbers, as in "
            f"synthetic:{','.join(map(str, DEFAULTS))} (classes, size, training images)"
        )
    classes, size, count = numbers
    if max(count, classes) > MOST_IMAGES or 3 * size**2 * (classes + BANK) > MOST_NUMBERS:
        raise DataError(
            f"data 'synthetic:{text:.99}': needs too much memory; use at most {MOST_IMAGES:,} "
            "images, and fewer classes or a smaller size"
        )
    return numbers
