"""Batches for training and validation, exact to resume and to split.

Which images a step sees, and every random draw on them, is a pure function of (seed, epoch,
position): a run can go on from any step without reading what it already saw, on any number of
processes and workers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from convnext_study.training.data.augment import draw_mirrored, draw_offsets, flip, shift
from convnext_study.training.data.images import Data, TensorImages
from convnext_study.training.data.loading import Samples, load
from convnext_study.training.data.share import WHOLE, Share, micro_batches, part_of, pieces_of
from convnext_study.training.data.transforms import image_size, train_transform, val_transform
from convnext_study.training.recipe import Recipe
from convnext_study.training.seeds import derive, generator

__all__ = [
    "Batch",
    "Share",
    "epoch_order",
    "image_size",
    "micro_batches",
    "part_of",
    "steps_per_epoch",
    "train_batches",
    "val_batches",
]

Batch = tuple[torch.Tensor, torch.Tensor]  # images (N, 3, H, W) float32, labels (N,) int64


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch (from 0) visits ``count`` images."""
    return torch.randperm(count, generator=generator(derive(seed, "order", epoch)))


def steps_per_epoch(count: int, batch: int) -> int:
    """Full batches in an epoch; the rest of the images wait for the next order."""
    return max(count // batch, 1)


def mix_group(recipe: Recipe) -> int | None:
    """Images that are mixed by one draw; None where none are."""
    return recipe.mix_group_size if recipe.mixes else None


def check_split(data: Data, recipe: Recipe, share: Share) -> None:
    """Raises BadRequest where the optimizer's batch cannot be taken as ``share`` says."""
    count = min(len(data.train), recipe.global_batch)
    pieces_of(torch.arange(count), recipe.global_batch, share, mix_group(recipe))


def in_memory(data: Data, recipe: Recipe) -> bool:
    """Whether batches can be cut straight from memory, which is much the fastest."""
    plain = recipe.crop != "random_resized" and not recipe.rand_augment
    plain = plain and not recipe.color_jitter and not recipe.random_erasing
    same_size = image_size(data, recipe) == data.size and recipe.eval_crop_ratio == 1.0
    return isinstance(data.train, TensorImages) and plain and same_size


def train_batches(
    data: Data,
    recipe: Recipe,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int = 0,
    share: Share = WHOLE,
) -> Iterator[Batch]:
    """This process's batches of an epoch from its optimizer step ``start`` on.

    There are as many of equal size for each step as ``micro_batches`` says. Raises BadRequest where
    the batch cannot be split so, DataError at an image that cannot be used.
    """
    batch, count = recipe.global_batch, len(data.train)
    order = epoch_order(count, seed, epoch)
    steps = range(start, steps_per_epoch(count, batch))
    group = mix_group(recipe)
    if in_memory(data, recipe):
        images = data.train
        assert isinstance(images, TensorImages)  # noqa: S101  in_memory said so
        for step in steps:
            draw = generator(derive(seed, "augment", epoch, step))
            indices = order[step * batch : (step + 1) * batch]
            yield from _from_memory(images, indices, draw, data, recipe, share)
        return
    pieces = [
        piece.tolist()
        for step in steps
        for piece in pieces_of(order[step * batch : (step + 1) * batch], batch, share, group)
    ]
    transform = train_transform(data, recipe)
    samples = Samples(data.train, transform, (seed, epoch), data.bad.on_bad)
    yield from load(samples, pieces, data.bad, workers)


def val_batches(
    data: Data, recipe: Recipe, batch: int, workers: int = 0, share: Share = WHOLE
) -> Iterator[Batch]:
    """The validation images ``part_of(len(data.val), share)``, each exactly once and in order.

    Results of the processes, put one after another by rank, are in the order of the data set.
    """
    part = part_of(len(data.val), share)
    batches = [part[first : first + batch] for first in range(0, len(part), batch)]
    if in_memory(data, recipe) and isinstance(data.val, TensorImages):
        for indices in map(torch.tensor, batches):
            yield normalise(data.val.at(indices), data), data.val.labels[indices]
        return
    samples = Samples(data.val, val_transform(data, recipe), None, data.bad.on_bad)
    yield from load(samples, [list(indices) for indices in batches], data.bad, workers)


def _from_memory(
    images: TensorImages,
    indices: torch.Tensor,
    draw: torch.Generator,
    data: Data,
    recipe: Recipe,
    share: Share,
) -> Iterator[Batch]:
    """One optimizer step's pieces, with draws made for all of its images."""
    count, side = len(indices), image_size(data, recipe)
    offsets = draw_offsets(count, side, draw) if recipe.crop == "shift" else None
    mirrored = draw_mirrored(count, draw) if recipe.flip and data.flips else None
    for piece in pieces_of(torch.arange(count), recipe.global_batch, share, mix_group(recipe)):
        pixels = images.at(indices[piece])
        if offsets is not None:
            pixels = shift(pixels, offsets[:, piece])
        if mirrored is not None:
            pixels = flip(pixels, mirrored[piece])
        yield normalise(pixels, data), images.labels[indices[piece]]


def normalise(images: torch.Tensor, data: Data) -> torch.Tensor:
    """(N, C, H, W) uint8 to float32 with mean 0 and deviation 1 in each channel."""
    mean = torch.tensor(data.mean).view(1, -1, 1, 1) * 255
    std = torch.tensor(data.std).view(1, -1, 1, 1) * 255
    return (images.float() - mean) / std
