"""The published transforms for images from files, by timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from convnext_study.training.data.batches import image_size
from convnext_study.training.data.images import Data
from convnext_study.training.recipe import Recipe

Transform = Callable[[Any], torch.Tensor]


def train_transform(data: Data, recipe: Recipe) -> Transform:
    """PIL image to a normalised (3, H, W) tensor: crop, flip, RandAugment, Random Erasing."""
    from timm.data import create_transform

    transform: Transform = create_transform(
        input_size=image_size(data, recipe),
        is_training=True,
        no_aug=recipe.crop == "none",
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
    return transform


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
