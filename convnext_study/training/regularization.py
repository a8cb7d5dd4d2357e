"""Mixup, CutMix and stochastic depth, drawn for the whole global batch.

The draws depend on the seed, the step and an image's position in the batch, and not on how the
batch is split over processes and micro-batches.
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
    """The recipe's Mixup and CutMix, drawn from the seed, the step and the group of images."""

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
        """Images (n, 3, H, W), mixed in place, and soft labels (n, classes) with label smoothing.

        ``places`` (n,) are the images' positions in the step's batch: of each group whole pairs,
        one after the other, as `split_batch` orders them.
        """
        targets, start = [], 0
        groups, counts = torch.unique_consecutive(places // self._group, return_counts=True)
        for group, count in zip(groups.tolist(), counts.tolist(), strict=True):
            part = slice(start, start + count)
            with kept_generators():  # timm's Mixup uses numpy's global generator
                np.random.seed(fold_in(self._seed, "mix", step, group) % 2**32)
                _, soft = self._mixup(images[part], labels[part])  # in place
            targets.append(soft)
            start += count
        return images, torch.cat(targets)


class Masks:
    """Which images keep which branches: filled for a micro-batch before its forward pass.

    They stay until the next one, so that a backward pass that reruns a block uses the same masks.
    """

    def __init__(self, seed: int, count: int) -> None:
        """``count`` is the number of images in the global batch."""
        self.rates: list[float] = []  # of each layer
        self.kept: Tensor | None = None  # (layers, images of the micro-batch) float32, 0 or 1
        self._seed, self._count = seed, count
        self._drawn: tuple[int, Tensor] | None = None

    def fill(self, step: int, places: Tensor, device: torch.device) -> None:
        """Set the masks for the images at positions ``places`` (n,) of a step's batch."""
        if not self.rates:
            return
        if self._drawn is None or self._drawn[0] != step:
            draw = generator(fold_in(self._seed, "stochastic depth", step))
            values = torch.rand(len(self.rates), self._count, generator=draw)
            self._drawn = step, (values >= torch.tensor(self.rates)[:, None]).float()
        self.kept = self._drawn[1][:, places].to(device, non_blocking=True)


class SharedDropPath(nn.Module):
    """Drops the branch of samples whose mask is 0, and scales the others.

    Args:
        rate: the probability that a sample is dropped.
        scale: divide what is kept by its probability, so that the mean stays.
        layer: this layer's row in the masks.
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
        if kept is None or kept.shape[1] != x.shape[0]:  # called directly, or on parts of images
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
    """Replace this package's, timm's and torchvision's stochastic depth by `SharedDropPath`.

    Parameter names stay. Dropout, and stochastic depth of other libraries, are left as they are:
    drawn per micro-batch.
    """
    masks = Masks(seed, count)
    for parent, name, child in list(_children(model)):
        settings = _rate_and_scale(child)
        if settings is not None:
            rate, scale = settings
            layer = SharedDropPath(rate, len(masks.rates), masks, scale=scale)
            masks.rates.append(rate)
            setattr(parent, name, layer.train(child.training))
    return masks


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            yield parent, name, child


def _rate_and_scale(module: nn.Module) -> tuple[float, bool] | None:
    """The rate and scaling of a module that is per-sample stochastic depth; None for any other.

    A library that is not imported cannot have made it, so that it is not imported here.
    """
    if isinstance(module, DropPath):
        return module.rate, True
    timm_drop = getattr(sys.modules.get("timm.layers.drop"), "DropPath", None)
    if timm_drop is not None and isinstance(module, timm_drop):
        return float(module.drop_prob), bool(module.scale_by_keep)
    tv_drop = getattr(sys.modules.get("torchvision.ops.stochastic_depth"), "StochasticDepth", None)
    if tv_drop is not None and isinstance(module, tv_drop) and module.mode == "row":
        return float(module.p), True
    return None
