"""Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019), drawn for groups of images.

The draws are timm's, one for each group of a step; a group may be spread over many pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from convnext_study.data.rng import fold_in
from convnext_study.data.timm_parts import timm_part
from convnext_study.recipes import Recipe


class Mixing:
    """Mixes images and labels as a recipe says.

    What is drawn is a function of the seed, the step and the group, so that it is the same however
    the step's images are split.
    """

    def __init__(self, recipe: Recipe, classes: int, seed: int) -> None:
        self._group, self._seed = recipe.mix_group_size, seed
        self._mixup = timm_part("mixup").Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mixup_prob,
            switch_prob=recipe.mixup_switch_prob,
            label_smoothing=recipe.label_smoothing,
            num_classes=classes,
        )

    def __call__(
        self, images: Tensor, labels: Tensor, places: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed in place: (n, 3, H, W); and soft labels (n, classes), which hold the smoothing.

        ``places`` (n,) are where the images stand in the step's batch: of each group whole pairs,
        one after the other as `split_batch` has them.
        """
        targets, start = [], 0
        groups, counts = torch.unique_consecutive(places // self._group, return_counts=True)
        for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
            part = slice(start, start + count)
            with _drawn_from(fold_in(self._seed, "mix", step, group)):
                _, soft = self._mixup(images[part], labels[part])  # in place
            targets.append(soft)
            start += count
        return images, torch.cat(targets)


@contextmanager
def _drawn_from(number: int) -> Iterator[None]:
    """Numpy's global generator, from which timm's Mixup draws, seeded and put back."""
    before = np.random.get_state()
    np.random.seed(number % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
