"""Transform image and label together: scale, crop and mirror maps, crop people in squares.

Images are interpolated, labels never: torchvision distinguishes them by their tensor types.
Draws are from torch's global generator, which is seeded for each image (see `data.workers`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from convnext_study.data.dataset import IGNORE, DatasetPair, Target, padded_side, to_pil
from convnext_study.data.decode import to_tensor
from convnext_study.data.transforms.image import interleaved
from convnext_study.errors import UserError


@dataclass(frozen=True)
class Crop:
    """The random crop of a training image.

    Args:
        height: of the crop, in pixels.
        width: of the crop, in pixels.
        scales: the image is first scaled by one of these.
        flip: mirror half of the images, if the data allows it.
    """

    height: int
    width: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or not self.scales or min(self.scales) <= 0:
            raise UserError(
                f"crop {self.height}x{self.width}, scales {self.scales}: must be positive"
            )


class TrainTransform:
    """Random scale, crop and mirroring.

    Only the part of the image inside the crop is scaled. Beyond the image's right and lower edge
    the crop has the mean colour, and its labels are ignored.
    """

    def __init__(self, data: DatasetPair, crop: Crop) -> None:
        self.crop, self._flips = crop, crop.flip and data.flips
        self._colour = mean_colour(data)

    def __call__(self, image: Tensor, labels: Target) -> tuple[Tensor, Tensor, None]:
        """Crop (3, H, W) and (H, W) uint8 alike."""
        from torchvision.transforms.v2 import functional as F

        labels = torch.as_tensor(labels)
        scale = self.crop.scales[_draw(len(self.crop.scales))]
        (top, rows, height), (left, columns, width) = (
            _span(side, crop, scale)
            for side, crop in zip(image.shape[1:], (self.crop.height, self.crop.width), strict=True)
        )
        mirrored = self._flips and bool(_draw(2))
        # Cropped first, so that no work is done on unused pixels.
        crop_slices = slice(top, top + rows), slice(left, left + columns)
        pair = _as_pair(image[:, *crop_slices], labels[*crop_slices])
        if (rows, columns) != (height, width):
            pair = [F.resize(tensor, [height, width], antialias=True) for tensor in pair]
        if mirrored:
            pair = [F.horizontal_flip(tensor) for tensor in pair]
        return padded(pair, self.crop.height, self.crop.width, self._colour)


class WholeImage:
    """A pair unchanged, except for padding to sides that a network accepts."""

    def __init__(self, data: DatasetPair) -> None:
        self._colour = mean_colour(data)

    def __call__(self, image: Tensor, labels: Target) -> tuple[Tensor, Tensor, None]:
        """Pad (3, H, W) and (H, W) uint8 at the right and below."""
        height, width = map(padded_side, image.shape[1:])
        return padded(_as_pair(image, labels), height, width, self._colour)


def padded(
    pair: list[Any], height: int, width: int, colour: tuple[int, ...]
) -> tuple[Tensor, Tensor, None]:
    """Image and labels padded at the right and below, with a colour and ignored labels."""
    from torchvision.transforms.v2 import functional as F

    image, labels = pair
    missing = [0, 0, width - image.shape[-1], height - image.shape[-2]]
    if any(missing):
        image = F.pad(image, missing, fill=list(colour))
        labels = F.pad(labels, missing, fill=IGNORE)
    return image.as_subclass(Tensor), labels.as_subclass(Tensor), None


def mean_colour(data: DatasetPair) -> tuple[int, ...]:
    """The colour, from 0 to 255, that is close to 0 after normalisation."""
    return tuple(round(255 * value) for value in data.mean)


def _as_pair(image: Tensor, labels: Target) -> list[Any]:
    from torchvision import tv_tensors

    return [tv_tensors.Image(interleaved(image)), tv_tensors.Mask(labels)]


def _span(side: int, crop: int, scale: float) -> tuple[int, int, int]:
    """Along one side: the first pixel used, the number of pixels used, and their scaled number."""
    scaled = max(round(side * scale), 1)
    if scaled <= crop:
        return 0, side, scaled
    length = min(max(round(crop / scale), 1), side)
    return _draw(side - length + 1), length, crop


def _draw(count: int) -> int:
    """A random integer from 0 to ``count`` - 1."""
    return int(torch.randint(count, ()))


@dataclass(frozen=True)
class PersonCrop:
    """How people are augmented for training; the defaults are HRNet's for MPII.

    Args:
        size: side of the network's square input, in pixels.
        scale: standard deviation of the scale factor, which is clipped to one of it around 1.
        turn: standard deviation of the rotation in degrees, which is clipped to two of it.
        turned: probability of a rotation.
        flip: mirror half of the people.
    """

    size: int = 256
    scale: float = 0.25
    turn: float = 30.0
    turned: float = 0.6
    flip: bool = True

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.scale < 1:
            raise UserError(f"size {self.size}, scale {self.scale}: must be positive")


class CropPerson:
    """Crops a person, with draws from torch's global generator, or none."""

    def __init__(self, drawn: PersonCrop, mirrored: tuple[int, ...], *, draws: bool) -> None:
        self._drawn, self._draws = drawn, draws
        self._mirrored = torch.tensor(mirrored)

    def __call__(self, image: Tensor, rows: Target) -> tuple[Tensor, Tensor, None]:
        """From (3, H, W) uint8 and a person's rows (see `mpii.Person`), the square and its rows.

        It is black outside the image.
        """
        rows = torch.as_tensor(rows)
        factor, angle, mirror = self._draw() if self._draws else (1.0, 0.0, False)
        size, side = self._drawn.size, float(rows[-1, 2]) * factor
        zoom = size / side
        cos, sin = math.cos(angle), math.sin(angle)
        turn = torch.tensor([[cos, -sin], [sin, cos]])
        moved = self._moved(rows, turn, zoom, mirror=mirror)
        # From the square back to the image, as Pillow expects it.
        back = turn / zoom * torch.tensor([-1.0 if mirror else 1.0, 1.0])
        offset = rows[-1, :2] - back @ torch.full((2,), size / 2)
        matrix = torch.cat([back, offset[:, None]], 1).flatten().tolist()
        cut = to_pil(image).transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        return to_tensor(cut), moved, None

    def _moved(self, rows: Tensor, turn: Tensor, zoom: float, *, mirror: bool) -> Tensor:
        moved = rows.clone()
        half = self._drawn.size / 2
        moved[:, :2] = (rows[:, :2] - rows[-1, :2]) @ turn * zoom + half
        moved[-1, 2:] = rows[-1, 2:] * zoom
        if mirror:
            moved[:, 0] = 2 * half - moved[:, 0]
            moved[:-1] = moved[:-1][self._mirrored]
        return moved

    def _draw(self) -> tuple[float, float, bool]:
        """A factor for the square's side, an angle in radians, and whether to mirror."""
        drawn = self._drawn
        scale_draw, angle_draw = torch.randn(2).tolist()
        turn_draw, flip_draw = torch.rand(2).tolist()
        factor = 1 + drawn.scale * min(max(scale_draw, -1.0), 1.0)
        angle = drawn.turn * min(max(angle_draw, -2.0), 2.0) if turn_draw < drawn.turned else 0.0
        return factor, math.radians(angle), drawn.flip and flip_draw < 0.5
