"""The published transforms for images from files: timm's, and its draws, on faster pixels."""

from __future__ import annotations

import math
from typing import Any

from convnext_study.training.data.images import Data
from convnext_study.training.data.pixels import (
    Erasing,
    RandomResizedCrop,
    Steps,
    ToPillow,
    centre_crop,
    shifted_crop,
)
from convnext_study.training.data.posterize import repair_posterize
from convnext_study.training.recipe import Recipe, RecipeError


def image_size(data: Data, recipe: Recipe) -> int:
    """Side of the images that the network sees."""
    return recipe.image_size or data.size


def train_transform(data: Data, recipe: Recipe) -> Steps:
    """An image to (3, H, W) uint8: crop, flip, RandAugment; and what Random Erasing erases.

    Raises RecipeError where ``rand_augment`` is not timm's notation.
    """
    crop, *steps = _timms(data, recipe)
    crops: list[Any] = [RandomResizedCrop(crop)]
    side = image_size(data, recipe)
    if recipe.crop != "random_resized":
        shifted = recipe.crop == "shift"
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


def val_transform(data: Data, recipe: Recipe) -> Steps:
    """An image to (3, H, W) uint8: resize the short side, crop the centre."""
    side = image_size(data, recipe)
    resize_to = math.floor(side / recipe.eval_crop_ratio)
    return Steps(centre_crop(side, resize_to, recipe.interpolation))


def _timms(data: Data, recipe: Recipe) -> list[Any]:
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
