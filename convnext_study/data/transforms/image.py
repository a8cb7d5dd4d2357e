"""The published transforms for images from files: timm's, and its draws, on faster pixels.

Steps work on an image as a (3, H, W) uint8 tensor. In memory a pixel's three values stay side by
side throughout, as decoders and Pillow have them and channels-last networks want them: nothing is
transposed, and torch resizes such images faster, to the same values.

A tensor is resized in 8 bits by torch, with antialiasing, in a third of Pillow's time. On
photographs 96 % of the values are Pillow's, 4 % are one level of 255 off, without bias, and one
in 5,000 is off by more: beside saturated edges, where it matters which side is resized first.

timm's posterize with 0 bits, which Pillow 13 refuses, is repaired. timm keeps int(0.4 m) bits at
magnitude m, and 4 less that many with ``inc1``: 0 below 2.5, or at 10, where 2 % of the draws of
rand-m9-mstd0.5-inc1 end; with ``mmax`` over 10 even fewer. Up to Pillow 12 the mask of the bits to
keep was then 0 and the image came out black: that is what the published networks were trained with,
and it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image, ImageOps

from convnext_study.data.dataset import DatasetPair, Target, to_pil
from convnext_study.data.decode import to_tensor
from convnext_study.data.transforms.batch import reach
from convnext_study.data.workers import Box
from convnext_study.recipes import Recipe, RecipeError


def image_size(data: DatasetPair, recipe: Recipe) -> int:
    """Side of the images that the network sees."""
    return recipe.image_size or data.size


def train_transform(data: DatasetPair, recipe: Recipe) -> Steps:
    """An image to (3, H, W) uint8: crop, flip, RandAugment; and what Random Erasing erases.

    Raises RecipeError where ``rand_augment`` is not timm's notation.
    """
    crop, *steps = _timms(data, recipe)
    crops: list[Any] = [RandomResizedCrop(crop)]
    side = image_size(data, recipe)
    if recipe.crop != "random_resized":
        shifted = recipe.crop == "random_crop"
        crops = (
            shifted_crop(side, recipe.interpolation)
            if shifted
            else centre_crop(side, side, recipe.interpolation)
        )
    names = [type(step).__name__ for step in steps]
    last = names.index("MaybeToTensor")
    # A mirror image is the same of a tensor and of Pillow's; other steps are not quite.
    if set(names[:last]) - {"RandomHorizontalFlip"}:
        crops.append(ToPillow())
    for step in steps:
        repair_posterize(step)
    # After timm's ToTensor and Normalize comes Random Erasing, if anything.
    erasing = [Erasing(step) for step in steps[last + 2 :]]
    return Steps([*crops, *steps[:last]], *erasing)


def val_transform(data: DatasetPair, recipe: Recipe) -> Steps:
    """An image to (3, H, W) uint8: resize the short side, crop the centre."""
    side = image_size(data, recipe)
    resize_to = math.floor(side / recipe.crop_pct)
    return Steps(centre_crop(side, resize_to, recipe.interpolation))


def _timms(data: DatasetPair, recipe: Recipe) -> list[Any]:
    """The steps of timm's own transform."""
    from timm.data import create_transform

    try:
        transform: Any = create_transform(
            input_size=image_size(data, recipe),
            is_training=True,
            hflip=0.5 if recipe.flip and data.flips else 0.0,
            auto_augment=recipe.rand_augment,
            color_jitter=recipe.color_jitter or None,
            interpolation=recipe.interpolation,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            re_count=1,
            mean=data.mean,
            std=data.std,
        )
    except (AssertionError, ValueError, LookupError) as error:
        raise RecipeError(
            f"recipe {recipe.name}: rand_augment {recipe.rand_augment!r}: not timm's notation "
            f"({error or type(error).__name__}); an example is rand-m9-mstd0.5-inc1"
        ) from error
    return list(transform.transforms)


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

    It is normalised on the device, in batches.
    """

    def __init__(self, transforms: list[Any], erasing: Erasing | None = None) -> None:
        self.transforms, self.erasing = transforms, erasing

    def __call__(
        self, image: torch.Tensor, label: Target
    ) -> tuple[torch.Tensor, Target, Box | None]:
        """Transform one image, (3, H, W) uint8; its label stays as it is."""
        for step in self.transforms:
            image = step(image)
        pixels = to_tensor(image) if isinstance(image, Image.Image) else image
        return pixels, label, self.erasing(*pixels.shape[1:]) if self.erasing else None


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


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Keep the highest bits of each channel; none of them: a black image."""
    if bits_to_keep >= 8:
        return image
    if bits_to_keep <= 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits_to_keep)


def repair_posterize(transform: Any) -> None:
    """Give a timm auto-augment's own ops the posterize above; timm itself is left as it is.

    Anything else than RandAugment, AutoAugment or AugMix passes unchanged.
    """
    for op in _ops(transform):
        if op.name.startswith("Posterize"):
            op.aug_fn = posterize


def _ops(transform: Any) -> Iterator[Any]:
    waiting = [getattr(transform, "ops", None), getattr(transform, "policy", None)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            waiting += one
        elif hasattr(one, "aug_fn") and hasattr(one, "name"):
            yield one
