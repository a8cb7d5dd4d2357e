"""The learning rate at every step of a recipe."""

from __future__ import annotations

import math

from convnext_study.recipes import Recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate used at optimizer step ``step`` (from 0).

    As in the released ConvNeXt code: warm-up rises linearly from 0 and reaches the full rate on
    its last step; the cosine then falls towards ``min_lr`` over the remaining steps, or the
    polynomial ``(1 - progress)^power`` does, as in segmentation since DeepLab (Chen et al., 2018).
    """
    scale = recipe.global_batch_size / recipe.lr_base_size
    peak, floor = recipe.lr * scale, recipe.min_lr * scale
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    if step < warmup:
        return peak * step / max(warmup - 1, 1)
    progress = (step - warmup) / max(total - warmup, 1)
    match recipe.schedule:
        case "step":
            return peak * recipe.gamma ** _passed(recipe.milestones, step // steps_per_epoch)
        case "constant":
            return peak
        case "cosine":
            return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
        case "poly":
            return floor + (peak - floor) * float((1 - progress) ** recipe.power)


def _passed(milestones: int | tuple[int, ...], epoch: int) -> int:
    """How many of the step schedule's milestones an epoch (from 0) has reached."""
    if isinstance(milestones, int):
        return epoch // milestones
    return sum(epoch >= milestone for milestone in milestones)
