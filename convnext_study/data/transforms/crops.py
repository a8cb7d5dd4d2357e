"""Resize, crop, shift and mirror (3, H, W) uint8 images with torch alone.

Resizing is torchvision's on the CPU, bit for bit, without the 1.6 s that importing it takes; the
crop modes are timm's three. Draws for a batch in memory are made first, for the whole batch: the
draws for an image then depend only on its position in the optimizer's batch, and not on how that
batch is split into pieces.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.data.transforms.evaluation import BORDER, CENTER, SQUASH


def resize(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Images (..., 3, H, W) uint8 resized to height and width, with antialiasing, each by itself.

    Channels-last memory stays channels last. ``interpolation`` is bicubic or bilinear.
    """
    if images.shape[-2:] == size:
        return images
    batch = images.reshape(-1, *images.shape[-3:])
    if len(batch) == 1 and batch.is_contiguous(memory_format=torch.channels_last):
        # For a single image torch would assume the other memory layout, and transpose twice.
        batch = batch.as_strided(batch.shape, (batch.numel(), *batch.stride()[1:]))
    resized = F.interpolate(batch, size, mode=interpolation, align_corners=False, antialias=True)
    return resized.reshape(*images.shape[:-2], *size)


class ShortSide:
    """Resizes the short side to ``size`` pixels, the other in proportion."""

    def __init__(self, size: int, interpolation: str) -> None:
        self.size, self.interpolation = size, interpolation

    def __call__(self, image: Tensor) -> Tensor:
        """Resize (3, H, W) to (3, H', W')."""
        short = min(image.shape[1:])
        high, wide = (int(self.size * side / short) for side in image.shape[1:])
        return resize(image, (high, wide), self.interpolation)


class LongSide(ShortSide):
    """Resizes the long side to ``size`` pixels, the other in proportion."""

    def __call__(self, image: Tensor) -> Tensor:
        """Resize (3, H, W) to (3, H', W')."""
        # timm's order of operations: another one can round to another size.
        ratio = max(side / self.size for side in image.shape[1:])
        high, wide = (max(round(side / ratio), 1) for side in image.shape[1:])
        return resize(image, (high, wide), self.interpolation)


class BothSides(ShortSide):
    """Resizes both sides to ``size`` pixels, ignoring the aspect ratio."""

    def __call__(self, image: Tensor) -> Tensor:
        """Resize (3, H, W) to (3, size, size)."""
        return resize(image, (self.size, self.size), self.interpolation)


class CentreCrop:
    """The central square; smaller images get borders of one colour."""

    def __init__(self, side: int, fill: tuple[int, ...] = (0, 0, 0)) -> None:
        self.side, self.fill = side, fill

    def __call__(self, image: Tensor) -> Tensor:
        """Cut (3, side, side) out of (3, H, W)."""
        missing = [max(self.side - length, 0) // 2 for length in image.shape[1:]]
        if min(image.shape[1:]) < self.side:
            high, wide = image.shape[1:]
            size = max(high, self.side), max(wide, self.side)
            canvas = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1).repeat(1, *size)
            top, left = missing
            canvas[:, top : top + high, left : left + wide] = image
            image = canvas
        top, left = (round((length - self.side) / 2) for length in image.shape[1:])
        return image[:, top : top + self.side, left : left + self.side]


def crop_steps(
    mode: str, side: int, resized: int, interpolation: str, mean: tuple[float, ...] = ()
) -> list[Any]:
    """The steps from an image to (3, side, side), as timm's evaluation transform takes them.

    Args:
        mode: one of `evaluation.MODES`.
        side: of the result, in pixels.
        resized: length in pixels of the side or sides that are resized.
        interpolation: ``bicubic`` or ``bilinear``, with antialiasing.
        mean: per channel, as fractions of 255: the colour of borders.
    """
    resizing = {CENTER: ShortSide, SQUASH: BothSides, BORDER: LongSide}[mode]
    fill = tuple(round(255 * value) for value in mean) if mode == BORDER else (0, 0, 0)
    return [resizing(resized, interpolation), CentreCrop(side, fill)]


SHIFT = 8  # a shift of up to an eighth of the side: CIFAR's usual 4 pixels of 32


def reach(side: int) -> int:
    """The largest shift of an image with this side, in pixels."""
    return max(side // SHIFT, 1)


def draw_offsets(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Random offsets for ``shift``: (2, count), each from 0 to twice the reach."""
    return torch.randint(0, 2 * reach(side) + 1, (2, count), generator=generator)


def draw_mirrored(count: int, generator: torch.Generator) -> torch.Tensor:
    """Which images ``flip`` mirrors: (count,) bool, each with probability one half."""
    return torch.rand(count, generator=generator) < 0.5


def shift(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Shift each image by its own offset (rows, columns), filling with edge values.

    The usual "pad and crop" of 32x32 images. Maps (N, C, H, W) to the same shape.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (reach(height),) * 4, mode="replicate")
    # All placements of the crop are a view; indexing copies one for each image.
    placements = padded.unfold(2, height, 1).unfold(3, width, 1)
    return placements[torch.arange(len(images)), :, offsets[0], offsets[1]]


def flip(images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Mirror the images where ``mirrored`` (N,) is set."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
