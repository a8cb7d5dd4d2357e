"""Image and label map moved together: scaled, cropped, mirrored; or whole, for evaluation.

Images are interpolated, labels never: torchvision keeps the two apart by their tensors' kinds.
Draws are from torch's global generator, which is seeded for each image (see `data.workers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convnext_study.data.dataset import IGNORE, DatasetPair, Target
from convnext_study.data.transforms.image import interleaved
from convnext_study.errors import UserError


@dataclass(frozen=True)
class Crop:
    """What is cut out of a training image, and how it is drawn.

    Args:
        height: of the crop, in pixels.
        width: of the crop, in pixels.
        scales: the image is first scaled by one of these.
        flip: mirror one image in two, where the data allows it.
    """

    height: int
    width: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or not self.scales or min(self.scales) <= 0:
            raise UserError(f"crop {self.height}x{self.width}, scales {self.scales}: not positive")


class TrainTransform:
    """Random scale, random crop, random mirror image.

    Of the image only what is in the crop is scaled. What the crop has beyond the image's right and
    lower edge is the mean colour, and ignored.
    """

    def __init__(self, data: DatasetPair, crop: Crop) -> None:
        self.crop, self._flips = crop, crop.flip and data.flips
        self._colour = mean_colour(data)

    def __call__(self, image: Tensor, labels: Target) -> tuple[Tensor, Tensor, None]:
        """Of (3, H, W) and (H, W) uint8, a crop of both."""
        from torchvision.transforms.v2 import functional as F

        labels = torch.as_tensor(labels)
        scale = self.crop.scales[_draw(len(self.crop.scales))]
        (top, rows, height), (left, columns, width) = (
            _span(side, crop, scale)
            for side, crop in zip(image.shape[1:], (self.crop.height, self.crop.width), strict=True)
        )
        mirrored = self._flips and bool(_draw(2))
        # Cut before all else, so that nothing is done to what is not used.
        used = slice(top, top + rows), slice(left, left + columns)
        pair = _as_pair(image[:, *used], labels[*used])
        if (rows, columns) != (height, width):
            pair = [F.resize(one, [height, width], antialias=True) for one in pair]
        if mirrored:
            pair = [F.horizontal_flip(one) for one in pair]
        return padded(pair, self.crop.height, self.crop.width, self._colour)


class WholeImage:
    """A pair as it is, but padded to sides that ``divisor`` divides."""

    def __init__(self, data: DatasetPair, divisor: int = 1) -> None:
        self._divisor, self._colour = divisor, mean_colour(data)

    def __call__(self, image: Tensor, labels: Target) -> tuple[Tensor, Tensor, None]:
        """Of (3, H, W) and (H, W) uint8, both with a margin at the right and below."""
        height, width = (-(-side // self._divisor) * self._divisor for side in image.shape[1:])
        return padded(_as_pair(image, labels), height, width, self._colour)


def padded(
    pair: list[Any], height: int, width: int, colour: tuple[int, ...]
) -> tuple[Tensor, Tensor, None]:
    """Image and labels with a margin at the right and below, of a colour and ignored."""
    from torchvision.transforms.v2 import functional as F

    image, labels = pair
    missing = [0, 0, width - image.shape[-1], height - image.shape[-2]]
    if any(missing):
        image = F.pad(image, missing, fill=list(colour))
        labels = F.pad(labels, missing, fill=IGNORE)
    return image.as_subclass(Tensor), labels.as_subclass(Tensor), None


def mean_colour(data: DatasetPair) -> tuple[int, ...]:
    """What is 0 after normalisation, nearly, of 255."""
    return tuple(round(255 * value) for value in data.mean)


def _as_pair(image: Tensor, labels: Target) -> list[Any]:
    from torchvision import tv_tensors

    return [tv_tensors.Image(interleaved(image)), tv_tensors.Mask(labels)]


def _span(side: int, crop: int, scale: float) -> tuple[int, int, int]:
    """Along one side: the first pixel that is used, how many are, and how many they become."""
    scaled = max(round(side * scale), 1)
    if scaled <= crop:
        return 0, side, scaled
    used = min(max(round(crop / scale), 1), side)
    return _draw(side - used + 1), used, crop


def _draw(count: int) -> int:
    """A whole number from 0, below ``count``."""
    return int(torch.randint(count, ()))
