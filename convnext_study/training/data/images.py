"""What a data set is to the engine: images in memory, or images that are read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from convnext_study.errors import BadRequest


class DataError(BadRequest):
    """Data cannot be used; the message names the path and says what to do."""


class ImageSet(Protocol):
    """Images with labels, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class MemoryImages:
    """Images held in memory: ``images`` (N, 3, H, W) uint8, ``labels`` (N,) int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        pixels = self.images[index].permute(1, 2, 0).numpy()
        return Image.fromarray(pixels), int(self.labels[index])


@dataclass(frozen=True)
class Data:
    """A data set with a training and a validation part.

    ``size`` is the side of the square images a network sees; ``flips`` whether a mirrored image
    still shows its class (a mirrored digit does not).
    """

    uri: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: ImageSet
    val: ImageSet
    flips: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.classes)


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of (N, C, H, W) uint8 images, as fractions of 255."""
    pixels = images.double() / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    return tuple(_rounded(mean)), tuple(_rounded(std.clamp_min(1e-3)))


def _rounded(values: torch.Tensor) -> Sequence[float]:
    return [round(float(value), 6) for value in values]
