"""The steps of a transform that work on an image as a (3, H, W) uint8 tensor.

In memory a pixel's three values stay side by side throughout, as decoders and Pillow have them
and channels-last networks want them: nothing is transposed, and torch resizes such images faster,
to the same values.

A tensor is resized in 8 bits by torch, with antialiasing, in a third of Pillow's time. On
photographs 96 % of the values are Pillow's, 4 % are one level of 255 off, without bias, and one
in 5,000 is off by more: beside saturated edges, where it matters which side is resized first.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from convnext_study.data.dataset import to_pil
from convnext_study.data.decode import to_tensor
from convnext_study.data.transforms.batch import reach
from convnext_study.data.workers import Box


class RandomResizedCrop:
    """timm's random resized crop, which makes the draws."""

    def __init__(self, timms: Any) -> None:
        self.timms = timms

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Crop and resize (3, H, W) uint8 to (3, size, size)."""
        from torchvision.transforms.v2 import functional as F

        top, left, height, width = self.timms.get_params(image, self.timms.scale, self.timms.ratio)
        part = image[:, top : top + height, left : left + width]
        resized: torch.Tensor = F.resize(
            interleaved(part),
            list(self.timms.size),
            interpolation=self.timms.interpolation,
            antialias=True,
        )
        return resized


class ToPillow:
    """For the steps after it that only take Pillow's images: RandAugment and colour jitter."""

    def __call__(self, image: torch.Tensor) -> Image.Image:
        """Convert (3, H, W) uint8."""
        return to_pil(image)


class Erasing:
    """timm's Random Erasing, which makes the draws, but for the noise: that is made on the device.

    Gives what is erased of an image of this size: top, left, height and width, or None.
    """

    def __init__(self, timms: Any) -> None:
        self.timms = timms
        timms.per_pixel = timms.rand_color = False

    def __call__(self, height: int, width: int) -> Box | None:
        """Draw the box for one image of this height and width."""
        drawn = _Drawn(height, width)
        self.timms(drawn)
        return drawn.box


class _Drawn:
    """Passes for an image, and remembers which part of it was set."""

    dtype = torch.float32

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.box: Box | None = None

    def size(self) -> tuple[int, int, int]:
        return 3, self.height, self.width

    def __setitem__(self, where: tuple[slice, slice, slice], _: Any) -> None:
        _, rows, columns = where
        height, width = rows.stop - rows.start, columns.stop - columns.start
        self.box = rows.start, columns.start, height, width


class Steps:
    """A transform: steps on an image's pixels, and what is then to be erased of them, if anything.

    The result is (3, H, W) uint8: it is normalised on the device, in batches.
    """

    def __init__(self, transforms: list[Any], erasing: Erasing | None = None) -> None:
        self.transforms, self.erasing = transforms, erasing

    def __call__(self, image: torch.Tensor | Image.Image) -> tuple[torch.Tensor, Box | None]:
        """Transform one image, (3, H, W) uint8 or of Pillow."""
        for step in self.transforms:
            image = step(image)
        pixels = to_tensor(image) if isinstance(image, Image.Image) else image
        return pixels, self.erasing(*pixels.shape[1:]) if self.erasing else None


def interleaved(image: torch.Tensor) -> torch.Tensor:
    """The same (3, H, W) image with a pixel's values side by side; itself where they are."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


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
