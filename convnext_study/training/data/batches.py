"""Batches for training and validation, exact to resume.

Which images a step sees, and every random draw on them, is a pure function of (seed, epoch,
position): a run can go on from any step without reading what it already saw, on any number of
workers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from convnext_study.training.data.augment import flip, shift
from convnext_study.training.data.images import Data, ImageSet, MemoryImages
from convnext_study.training.recipe import Recipe
from convnext_study.training.seeds import derive, generator, seed_everything

Batch = tuple[torch.Tensor, torch.Tensor]  # images (N, 3, H, W) float32, labels (N,) int64


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch (from 0) visits ``count`` images."""
    return torch.randperm(count, generator=generator(derive(seed, "order", epoch)))


def steps_per_epoch(count: int, batch: int) -> int:
    """Full batches in an epoch; the rest of the images wait for the next order."""
    return max(count // batch, 1)


def image_size(data: Data, recipe: Recipe) -> int:
    """Side of the images that the network sees."""
    return recipe.image_size or data.size


def in_memory(data: Data, recipe: Recipe) -> bool:
    """Whether batches can be cut straight from memory, which is much the fastest."""
    plain = recipe.crop != "random_resized" and not recipe.rand_augment
    same_size = image_size(data, recipe) == data.size and recipe.eval_crop_ratio == 1.0
    return isinstance(data.train, MemoryImages) and plain and same_size


def train_batches(
    data: Data, recipe: Recipe, seed: int, epoch: int, start: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """The batches of an epoch from its step ``start`` on."""
    batch = recipe.global_batch
    order = epoch_order(len(data.train), seed, epoch)
    steps = [
        order[step * batch : (step + 1) * batch]
        for step in range(start, steps_per_epoch(len(data.train), batch))
    ]
    if in_memory(data, recipe):
        assert isinstance(data.train, MemoryImages)  # noqa: S101  in_memory said so
        for step, indices in enumerate(steps, start):
            draw = generator(derive(seed, "augment", epoch, step))
            images = data.train.images[indices]
            if recipe.crop == "shift":
                images = shift(images, draw)
            if recipe.flip and data.flips:
                images = flip(images, draw)
            yield _normalise(images, data), data.train.labels[indices]
        return
    from convnext_study.training.data.transforms import train_transform

    images_of = _Transformed(data.train, train_transform(data, recipe), (seed, epoch))
    yield from _load(images_of, [step.tolist() for step in steps], data, workers)


def val_batches(data: Data, recipe: Recipe, batch: int, workers: int = 0) -> Iterator[Batch]:
    """Every validation image exactly once, in order."""
    count = len(data.val)
    if in_memory(data, recipe) and isinstance(data.val, MemoryImages):
        for first in range(0, count, batch):
            images = data.val.images[first : first + batch]
            yield _normalise(images, data), data.val.labels[first : first + batch]
        return
    from convnext_study.training.data.transforms import val_transform

    steps = [list(range(first, min(first + batch, count))) for first in range(0, count, batch)]
    yield from _load(
        _Transformed(data.val, val_transform(data, recipe), None), steps, data, workers
    )


class _Transformed(Dataset[tuple[torch.Tensor, int]]):
    """Images with their transform, each under a seed of its own where there is one."""

    def __init__(
        self, images: ImageSet, transform: Callable[[Any], torch.Tensor], seed: Any
    ) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.seed is None:
            image, label = self.images[index]
            return self.transform(image), label
        # In the training process itself the draws must not disturb the network's generators.
        before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
        seed_everything(derive(*self.seed, "augment", index))
        try:
            image, label = self.images[index]
            return self.transform(image), label
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])


def _load(
    images: _Transformed, steps: list[list[int]], data: Data, workers: int
) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_sampler=steps,
        num_workers=workers,
        worker_init_fn=_one_thread if workers else None,
        # Its own generator: the loader draws a base seed, which must not move the global one.
        generator=generator(0),
    )
    for pixels, labels in loader:
        yield _normalise(pixels, data), labels


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def _normalise(images: torch.Tensor, data: Data) -> torch.Tensor:
    """uint8 to float32 with mean 0 and deviation 1 in each channel; floats are left alone."""
    if images.dtype != torch.uint8:
        return images
    mean = torch.tensor(data.mean).view(1, -1, 1, 1) * 255
    std = torch.tensor(data.std).view(1, -1, 1, 1) * 255
    return (images.float() - mean) / std
