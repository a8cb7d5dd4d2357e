"""The published training transforms for images from files: timm's random draws, on faster pixels.

Steps work on an image as a (3, H, W) uint8 tensor. Its memory stays channels last throughout, as
decoders and Pillow provide it and channels-last networks expect it: nothing is transposed, and
torch resizes such images faster, to the same values.

torch resizes tensors in 8 bits, with antialiasing, in a third of Pillow's time. On photographs
96 % of the values equal Pillow's, 4 % are one level of 255 off, without bias, and one in 5,000 is
off by more: next to saturated edges, where it matters which side is resized first.

timm's posterize with 0 bits, which Pillow 13 rejects, is repaired. timm keeps int(0.4 m) bits at
magnitude m, and 4 minus that with ``inc1``: 0 below 2.5, or at 10, where 2 % of the draws of
rand-m9-mstd0.5-inc1 end; with ``mmax`` over 10 even fewer. Up to Pillow 12 the mask of the bits to
keep was then 0 and the image became black. The published networks were trained with that, so it is
kept.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image, ImageOps

from convnext_study.data.dataset import DatasetPair, Target, to_pil
from convnext_study.data.decode import to_tensor
from convnext_study.data.transforms import timm_part
from convnext_study.data.transforms.crops import crop_steps, reach, resize, shift
from convnext_study.data.transforms.evaluation import CENTER
from convnext_study.data.workers import Box
from convnext_study.recipes import Recipe, RecipeError


def image_size(data: DatasetPair, recipe: Recipe) -> int:
    """Side of the network's input images."""
    return recipe.image_size or data.size


def train_transform(data: DatasetPair, recipe: Recipe) -> Steps:
    """An image to (3, H, W) uint8: crop, flip, RandAugment; and the box of Random Erasing.

    Raises RecipeError if ``rand_augment`` is not in timm's notation.
    """
    side, interpolation = image_size(data, recipe), recipe.interpolation
    crops: dict[str, Callable[[], list[Any]]] = {
        "random_resized": lambda: [RandomResizedCrop(side, interpolation)],
        "random_crop": lambda: [*crop_steps(CENTER, side, side, interpolation), RandomShift()],
        "none": lambda: crop_steps(CENTER, side, side, interpolation),
    }
    steps = crops[recipe.crop]()
    if recipe.flip and data.flips:
        steps.append(RandomFlip())
    steps += _on_pillow(data, recipe)
    share = recipe.random_erasing
    return Steps(steps, Erasing(share) if share else None)


def val_transform(data: DatasetPair, recipe: Recipe) -> Steps:
    """An image to (3, H, W) uint8: resize the short side, crop the centre."""
    side = image_size(data, recipe)
    resize_to = math.floor(side / recipe.crop_pct)
    return Steps(crop_steps(CENTER, side, resize_to, recipe.interpolation))


def _on_pillow(data: DatasetPair, recipe: Recipe) -> list[Any]:
    """The steps on Pillow images: timm's RandAugment, or torchvision's colour jitter."""
    if not recipe.rand_augment:
        if not recipe.color_jitter:
            return []
        from torchvision.transforms import ColorJitter

        return [ToPillow(), ColorJitter(*[recipe.color_jitter] * 3)]
    augment, kind = timm_part("auto_augment"), recipe.rand_augment
    # As in timm's transform: lengths relative to the side, uncovered areas in the mean colour.
    params: dict[str, Any] = {
        "translate_const": int(0.45 * image_size(data, recipe)),
        "img_mean": tuple(min(255, round(255 * value)) for value in data.mean),
        "interpolation": Image.Resampling[recipe.interpolation.upper()],
    }
    makers = {
        "rand": augment.rand_augment_transform,
        "augmix": augment.augment_and_mix_transform,
    }
    make = next(
        (makers[start] for start in makers if kind.startswith(start)),
        augment.auto_augment_transform,
    )
    if make is makers["augmix"]:
        params["translate_pct"] = 0.3
    try:
        step = make(kind, params)
    except (AssertionError, ValueError, LookupError) as error:
        raise RecipeError(
            f"recipe {recipe.name}: rand_augment {kind!r}: not in timm's notation "
            f"({error or type(error).__name__}); an example is rand-m9-mstd0.5-inc1"
        ) from error
    repair_posterize(step)
    return [ToPillow(), step]


class RandomResizedCrop:
    """A crop of 8 to 100 % of an image's area, 3:4 to 4:3, resized; the draws are timm's.

    If ten draws do not fit into the image, the crop is central, as wide or high as fits.
    """

    SHARES, RATIOS, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10

    def __init__(self, side: int, interpolation: str) -> None:
        self.side, self.interpolation = side, interpolation

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Crop and resize (3, H, W) uint8 to (3, side, side)."""
        top, left, height, width = self.draw(*image.shape[1:])
        part = image[:, top : top + height, left : left + width]
        return resize(interleaved(part), (self.side, self.side), self.interpolation)

    def draw(self, height: int, width: int) -> Box:
        """The crop of an image with this height and width: top, left, height and width."""
        logs = [math.log(ratio) for ratio in self.RATIOS]
        for _ in range(self.TRIES):
            area = random.uniform(*self.SHARES) * (height * width)  # noqa: S311
            ratio = math.exp(random.uniform(*logs))  # noqa: S311
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if wide <= width and high <= height:
                top = random.randint(0, height - high)  # noqa: S311
                left = random.randint(0, width - wide)  # noqa: S311
                return top, left, high, wide
        low, most = self.RATIOS
        wide, high = width, height
        if width / height < low:
            high = round(width / low)
        elif width / height > most:
            wide = round(height * most)
        return (height - high) // 2, (width - wide) // 2, high, wide


class RandomFlip:
    """Mirrors an image with probability one half."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Mirror (3, H, W), or leave it as it is."""
        return image.flip(-1) if torch.rand(1) < 0.5 else image


class ToPillow:
    """Converts for the steps that only take Pillow images: RandAugment and colour jitter."""

    def __call__(self, image: torch.Tensor) -> Image.Image:
        """Convert (3, H, W) uint8."""
        return to_pil(image)


class Erasing:
    """The draws of timm's Random Erasing, except for the noise, which is made on the device.

    Returns the box to erase from an image of this size: top, left, height and width, or None.
    """

    def __init__(self, share: float) -> None:
        self.timms = timm_part("random_erasing").RandomErasing(share, device="cpu")

    def __call__(self, height: int, width: int) -> Box | None:
        """Draw the box for one image of this height and width."""
        drawn = _Drawn(height, width)
        self.timms(drawn)
        return drawn.box


class _Drawn:
    """Stands in for an image, and records which part of it was set."""

    dtype = torch.float32

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.box: Box | None = None

    def size(self) -> tuple[int, int, int]:
        return 3, self.height, self.width

    def __setitem__(self, index: tuple[slice, slice, slice], _: Any) -> None:
        _, rows, columns = index
        height, width = rows.stop - rows.start, columns.stop - columns.start
        self.box = rows.start, columns.start, height, width


class Steps:
    """A transform: steps on an image's pixels, and a box to erase from the result, if any.

    Images are normalised on the device, in batches.
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
    """The same (3, H, W) image, channels last in memory; unchanged if it is already."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


class RandomShift:
    """Shifts a square image by up to an eighth of its side, padding with its edges."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Shift (3, H, H)."""
        offsets = torch.randint(0, 2 * reach(image.shape[1]) + 1, (2, 1))
        return shift(image[None], offsets)[0]


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Keep the highest bits of each channel; with none the image is black."""
    if bits_to_keep >= 8:
        return image
    if bits_to_keep <= 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits_to_keep)


def repair_posterize(transform: Any) -> None:
    """Replace posterize in the ops of a timm auto-augment; timm's module is not modified.

    Transforms other than RandAugment, AutoAugment and AugMix are unchanged.
    """
    for op in _ops(transform):
        if op.name.startswith("Posterize"):
            op.aug_fn = posterize


def _ops(transform: Any) -> Iterator[Any]:
    pending = [getattr(transform, "ops", None), getattr(transform, "policy", None)]
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending += item
        elif hasattr(item, "aug_fn") and hasattr(item, "name"):
            yield item
