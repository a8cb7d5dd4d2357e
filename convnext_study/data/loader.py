"""Batches for training and validation, exact to resume and to split.

Which images per step sees, and every random draw on them, is a pure function of (seed, epoch,
position): a run can go on from any step without reading what it already saw, on any number of
processes and workers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from convnext_study.data.batch import Batch
from convnext_study.data.dataset import DatasetPair, InMemoryDataset, images_of_epoch
from convnext_study.data.order import (
    Asked,
    Order,
    counted,
    epoch_order,
    read_batches,
    steps_per_epoch,
    validation,
)
from convnext_study.data.pool import Readers
from convnext_study.data.rng import fold_in, generator
from convnext_study.data.sharding import WHOLE, BatchSharding, accum_steps, split_batch, val_indices
from convnext_study.data.transforms.batch import draw_mirrored, draw_offsets, flip, resize, shift
from convnext_study.data.transforms.build import image_size, train_transform, val_transform
from convnext_study.data.workers import Samples
from convnext_study.recipes import Recipe

__all__ = [
    "Batch",
    "BatchSharding",
    "Readers",
    "accum_steps",
    "epoch_order",
    "image_size",
    "make_readers",
    "steps_per_epoch",
    "train_batches",
    "val_batches",
    "val_indices",
]

Ahead = Callable[[Iterable[Batch]], Iterator[Batch]]


def mix_group(recipe: Recipe) -> int | None:
    """Images that are mixed by one draw; None where none are."""
    return recipe.mix_group_size if recipe.mixes else None


def check_split(data: DatasetPair, recipe: Recipe, sharding: BatchSharding) -> None:
    """Raises UserError where the optimizer's batch, and the one that the data can fill, cannot be
    taken as ``sharding`` says."""
    count = len(data.train)
    for one in (recipe, recipe.for_images(count)):
        batch = one.global_batch_size
        split_batch(torch.arange(min(count, batch)), batch, sharding, mix_group(one))


def in_memory(data: DatasetPair, recipe: Recipe) -> bool:
    """Whether batches can be cut straight from memory, which is much the fastest."""
    return isinstance(data.train, InMemoryDataset) and takes_whole_images(recipe)


def takes_whole_images(recipe: Recipe) -> bool:
    """Whether a recipe sees square images whole: as they are, resized, mirrored or moved."""
    plain = recipe.crop != "random_resized" and not recipe.rand_augment
    plain = plain and not recipe.color_jitter and not recipe.random_erasing
    return plain and recipe.crop_pct == 1.0


def make_readers(
    data: DatasetPair,
    recipe: Recipe,
    seed: int,
    workers: int,
    batch: int = 1,
    *,
    parts: Collection[str] = ("train", "val"),
    pin: bool = False,
) -> Readers:
    """What reads these parts of the data, in so many processes, until it is closed.

    ``batch`` is the largest requested; ``pin``: in memory that a GPU can copy from itself.
    """
    bad, samples = data.corrupt.on_corrupt, {}
    if "train" in parts:
        samples["train"] = Samples(data.train, train_transform(data, recipe), seed, bad)
    if "val" in parts:
        samples["val"] = Samples(data.val, val_transform(data, recipe), None, bad)
    return Readers(samples, workers, batch, pin=pin)


def train_batches(
    data: DatasetPair,
    recipe: Recipe,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int | Callable[[], Readers] = 0,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """This process's batches of an epoch from its optimizer step ``start`` on.

    There are as many of equal size for each step as ``accum_steps`` says. Raises UserError where
    the batch cannot be split so, DataError at an image that cannot be used.

    Args:
        data: the data set, whose training part is read.
        recipe: its batch size and transforms.
        seed: of the order of images and of every draw.
        epoch: from 0.
        start: the first optimizer step of the epoch to give.
        workers: processes that read, for this epoch alone; or what gives readers that stay, where
            anything has to be read.
        sharding: which part of each global batch is this process's.
        ahead: takes batches before they are used; bad images count when they are used.
    """
    batch, count = recipe.global_batch_size, len(data.train)
    order = Order(count, batch, seed, epoch)
    places = split_batch(torch.arange(min(batch, count)), batch, sharding, mix_group(recipe))
    if in_memory(data, recipe):
        source = _from_memory(data, recipe, order, start, places)
    else:
        source = _from_readers(data, recipe, seed, workers, order.asked(start, places))
    yield from counted(ahead(source), data.corrupt)


def val_batches(
    data: DatasetPair,
    recipe: Recipe,
    batch: int,
    workers: int | Callable[[], Readers] = 0,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """The validation images ``val_indices(len(data.val), share)``, each once and in order, but for
    bad ones where those are skipped: ``places`` of the batches says which ones they hold.

    Results of the processes, put one after another by rank, are in the order of the data set.
    """
    asked = validation(len(data.val), batch, sharding)
    source: Iterator[Batch]
    if in_memory(data, recipe) and isinstance(data.val, InMemoryDataset):
        images, side = data.val, image_size(data, recipe)
        source = (
            Batch(
                resize(images.at(one.places), side, recipe.interpolation),
                images.labels[one.places],
                one.places,
            )
            for one in asked
        )
    else:
        source = _from_readers(data, recipe, 0, workers, asked)
    yield from counted(ahead(source), data.corrupt)


def _from_readers(
    data: DatasetPair,
    recipe: Recipe,
    seed: int,
    workers: int | Callable[[], Readers],
    asked: Sequence[Asked],
) -> Iterator[Batch]:
    if not isinstance(workers, int):
        yield from read_batches(workers(), asked)
        return
    parts = {one.request.part for one in asked}
    readers = make_readers(data, recipe, seed, workers, parts=parts)
    try:
        yield from read_batches(readers, asked)
    finally:
        readers.close()


def _from_memory(
    data: DatasetPair, recipe: Recipe, epoch: Order, start: int, places: list[Tensor]
) -> Iterator[Batch]:
    """The pieces of each step, with draws made for all of its images."""
    images = images_of_epoch(data.train, epoch.seed, epoch.epoch)
    side = image_size(data, recipe)
    assert isinstance(images, InMemoryDataset)  # noqa: S101  in_memory said so
    for step in range(start, epoch.steps):
        indices = epoch.indices(step)
        draw = generator(fold_in(epoch.seed, "augment", epoch.epoch, step))
        offsets = draw_offsets(len(indices), side, draw) if recipe.crop == "random_crop" else None
        flips = recipe.flip and data.flips
        mirrored = draw_mirrored(len(indices), draw) if flips else None
        for piece in places:
            pixels = resize(images.at(indices[piece]), side, recipe.interpolation)
            if offsets is not None:
                pixels = shift(pixels, offsets[:, piece])
            if mirrored is not None:
                pixels = flip(pixels, mirrored[piece])
            labels = images.labels[indices[piece]]
            yield Batch(pixels, labels, piece, epoch.number(step))
