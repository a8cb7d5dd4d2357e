"""Mixup, CutMix and stochastic depth, drawn for the optimizer's whole batch.

What is drawn depends on the seed, the step and an image's place in the batch, and not on how the
batch is split over processes and pieces.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator, kept_generators
from convnext_study.data.transforms import timm_part
from convnext_study.models.layers import DropPath
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
            with kept_generators():  # timm's Mixup draws from numpy's
                np.random.seed(fold_in(self._seed, "mix", step, group) % 2**32)
                _, soft = self._mixup(images[part], labels[part])  # in place
            targets.append(soft)
            start += count
        return images, torch.cat(targets)


class Masks:
    """Which images keep which branches: filled for a piece before its forward pass.

    They stay until the next piece, so that a backward pass that runs a block again finds the same.
    """

    def __init__(self, seed: int, count: int) -> None:
        """``count`` images make the optimizer's batch."""
        self.rates: list[float] = []  # of each layer
        self.kept: Tensor | None = None  # (layers, images of the piece) float32, 0 or 1
        self._seed, self._count = seed, count
        self._drawn: tuple[int, Tensor] | None = None

    def fill(self, step: int, places: Tensor, device: torch.device) -> None:
        """For the images at ``places`` (n,) of a step's batch."""
        if not self.rates:
            return
        if self._drawn is None or self._drawn[0] != step:
            draw = generator(fold_in(self._seed, "stochastic depth", step))
            values = torch.rand(len(self.rates), self._count, generator=draw)
            self._drawn = step, (values >= torch.tensor(self.rates)[:, None]).float()
        self.kept = self._drawn[1][:, places].to(device, non_blocking=True)


class SharedDropPath(nn.Module):
    """Drops a sample's branch where the masks say so, and scales what is kept.

    Args:
        rate: of the samples that are dropped.
        scale: divide what is kept by its probability, so that the mean stays.
        layer: this one's row in the masks.
        masks: shared by all layers of a network.
    """

    def __init__(self, rate: float, layer: int, masks: Masks, *, scale: bool = True) -> None:
        super().__init__()
        self.rate, self.scale, self.layer = rate, scale, layer
        self._masks = masks

    def forward(self, x: Tensor) -> Tensor:
        """Zero or scale each sample of (N, ...) in training; the identity in evaluation."""
        if self.rate == 0.0 or not self.training:
            return x
        kept = self._masks.kept
        if kept is None or kept.shape[1] != x.shape[0]:  # called on its own, or on parts of images
            mask = x.new_empty(x.shape[0]).bernoulli_(1.0 - self.rate)
        else:
            mask = kept[self.layer].to(x.dtype)
        if self.scale and self.rate < 1.0:
            mask = mask / (1.0 - self.rate)
        return x * mask.view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """The rate, for ``print``."""
        return f"rate={self.rate:.3f}"


def share_masks(model: nn.Module, seed: int, count: int) -> Masks:
    """Put `SharedDropPath` in place of a network's own, timm's and torchvision's stochastic depth.

    Names of parameters stay. Dropout, and stochastic depth of another make, stay what they are:
    drawn for each piece.
    """
    masks = Masks(seed, count)
    for parent, name, child in list(_children(model)):
        found = _rate_and_scale(child)
        if found is not None:
            rate, scale = found
            layer = SharedDropPath(rate, len(masks.rates), masks, scale=scale)
            masks.rates.append(rate)
            setattr(parent, name, layer.train(child.training))
    return masks


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            yield parent, name, child


def _rate_and_scale(module: nn.Module) -> tuple[float, bool] | None:
    """Of a module that is stochastic depth by samples; None for any other.

    Libraries that nobody imported have no modules here: they are looked up, not imported.
    """
    if isinstance(module, DropPath):
        return module.rate, True
    timms = getattr(sys.modules.get("timm.layers.drop"), "DropPath", None)
    if timms is not None and isinstance(module, timms):
        return float(module.drop_prob), bool(module.scale_by_keep)
    torchvisions = getattr(
        sys.modules.get("torchvision.ops.stochastic_depth"), "StochasticDepth", None
    )
    if torchvisions is not None and isinstance(module, torchvisions) and module.mode == "row":
        return float(module.p), True
    return None
