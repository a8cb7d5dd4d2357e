"""The published transforms for images from files, by timm."""

from __future__ import annotations

from typing import Any

from convnext_study.training.data.augment import reach
from convnext_study.training.data.images import Data
from convnext_study.training.data.loading import Transform
from convnext_study.training.data.posterize import repair_posterize
from convnext_study.training.recipe import Recipe, RecipeError


def image_size(data: Data, recipe: Recipe) -> int:
    """Side of the images that the network sees."""
    return recipe.image_size or data.size


def train_transform(data: Data, recipe: Recipe) -> Transform:
    """PIL image to a normalised (3, H, W) tensor: crop, flip, RandAugment, Random Erasing.

    Raises RecipeError where ``rand_augment`` is not timm's notation.
    """
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
    if recipe.crop != "random_resized":
        transform.transforms[0] = _plain_crop(data, recipe)
    for step in transform.transforms:
        repair_posterize(step)
    return transform  # type: ignore[no-any-return]


def val_transform(data: Data, recipe: Recipe) -> Transform:
    """PIL image to a normalised (3, H, W) tensor: resize the short side, crop the centre."""
    from timm.data import create_transform

    transform: Transform = create_transform(
        input_size=image_size(data, recipe),
        interpolation=recipe.interpolation,
        crop_pct=recipe.eval_crop_ratio,
        mean=data.mean,
        std=data.std,
    )
    return transform


def _plain_crop(data: Data, recipe: Recipe) -> Any:
    """The whole short side, centred; for ``shift`` moved by up to an eighth of it."""
    from torchvision import transforms

    side = image_size(data, recipe)
    mode = transforms.InterpolationMode(recipe.interpolation)
    steps: list[Any] = [transforms.Resize(side, mode), transforms.CenterCrop(side)]
    if recipe.crop == "shift":
        steps.append(transforms.RandomCrop(side, padding=reach(side), padding_mode="edge"))
    return transforms.Compose(steps)
