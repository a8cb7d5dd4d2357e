"""The steps of a transform that work on an image as a (3, H, W) uint8 tensor.

A tensor is resized in 8 bits by torch, with antialiasing, in a third of Pillow's time. On
photographs 96 % of the values are Pillow's, 4 % are one level of 255 off, without bias, and one
in 5,000 is off by more: beside saturated edges, where it matters which side is resized first.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from convnext_study.training.data.augment import reach
from convnext_study.training.data.decode import to_tensor
from convnext_study.training.data.images import to_pil


class RandomResizedCrop:
    """timm's random resized crop, which makes the draws."""

    def __init__(self, timms: Any) -> None:
        self.timms = timms

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as F

        top, left, height, width = self.timms.get_params(image, self.timms.scale, self.timms.ratio)
        part = image[:, top : top + height, left : left + width]
        resized: torch.Tensor = F.resize(
            part, list(self.timms.size), interpolation=self.timms.interpolation, antialias=True
        )
        return resized


class ToPillow:
    """For the steps after it that only take Pillow's images: RandAugment and colour jitter."""

    def __call__(self, image: torch.Tensor) -> Image.Image:
        return to_pil(image)


class Normalise:
    """An image, from Pillow too, as float32 (3, H, W), mean 0 and deviation 1 in each channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        deviation = torch.tensor(std).view(-1, 1, 1)
        self.scale = 1 / (255 * deviation)
        self.shift = torch.tensor(mean).view(-1, 1, 1) / deviation

    def __call__(self, image: torch.Tensor | Image.Image) -> torch.Tensor:
        if isinstance(image, Image.Image):
            image = to_tensor(image)
        return image.contiguous().float().mul_(self.scale).sub_(self.shift)


def centre_crop(side: int, resize_to: int, interpolation: str) -> list[Any]:
    """Resize the short side, then cut out the middle square."""
    from torchvision.transforms import InterpolationMode, v2

    mode = InterpolationMode(interpolation)
    return [v2.Resize(resize_to, interpolation=mode, antialias=True), v2.CenterCrop(side)]


def shifted_crop(side: int, interpolation: str) -> list[Any]:
    """The middle square, moved by up to an eighth of its side; edges fill what is missing."""
    from torchvision.transforms import v2

    moved = v2.RandomCrop(side, padding=reach(side), padding_mode="edge")
    return [*centre_crop(side, side, interpolation), moved]
