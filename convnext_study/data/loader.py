"""Batches for training and validation, exact to resume and to split.

Which images each step sees, and every random draw on them, is a pure function of (seed, epoch,
position): a run can go on from any step without reading what it already saw, on any number of
processes and workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from convnext_study.data.dataset import CorruptImages, DatasetPair, InMemoryDataset
from convnext_study.data.pool import Readers
from convnext_study.data.rng import fold_in, generator
from convnext_study.data.sharding import WHOLE, BatchSharding, split_batch, val_indices
from convnext_study.data.transforms.crops import draw_mirrored, draw_offsets, flip, resize, shift
from convnext_study.data.transforms.image import image_size, train_transform, val_transform
from convnext_study.data.workers import EraseBox, Request, Samples, Transform
from convnext_study.recipes import Recipe


@dataclass(frozen=True)
class Batch:
    """Some images of one optimizer step, as they were read.

    Args:
        images: (n, 3, H, W) uint8.
        labels: (n,) int64; or of each image an array, (n, H, W) uint8 of a class for each pixel.
        places: (n,) int64, where each image stands in the optimizer's batch over all processes; of
            validation images, in the data set.
        step: the optimizer's step, from 0 over the whole run.
        erased: what is to be filled with noise.
        bad: names of images that could not be read: others stand in for them, or they are left out.
    """

    images: Tensor
    labels: Tensor
    places: Tensor
    step: int = 0
    erased: tuple[EraseBox, ...] = ()
    bad: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def pinned(self) -> Batch:
        """With images and labels in memory that a GPU can copy from by itself."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """With images and labels on a device; the rest stays with the host."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


class Asked(NamedTuple):
    """A batch to be read: the ``places`` of its images in the optimizer's batch, and its step."""

    request: Request
    places: Tensor
    step: int = 0


Reading = Callable[[], Readers]  # gives readers that stay, where anything has to be read
Ahead = Callable[[Iterable[Batch]], Iterator[Batch]]


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch (from 0) visits ``count`` images."""
    return torch.randperm(count, generator=generator(fold_in(seed, "order", epoch)))


def steps_per_epoch(count: int, batch: int) -> int:
    """Full batches in an epoch; the rest of the images wait for the next order."""
    return max(count // batch, 1)


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
    train: Transform | None,
    val: Transform | None,
    seed: int,
    workers: int = 0,
    batch: int = 1,
    *,
    early: tuple[int, Transform] | None = None,
    pin: bool = False,
) -> Readers:
    """What reads the data, in so many processes, until it is closed.

    Args:
        data: what is read.
        train: what happens to training images, with draws; None: they are not read.
        val: what happens to validation images, without.
        seed: of every draw.
        workers: processes; 0: this one.
        batch: images of the largest batch requested.
        early: what happens to training images in so many first epochs, if not ``train``.
        pin: give batches in memory that a GPU can copy from by itself.
    """
    bad, samples = data.corrupt.on_corrupt, {}
    if train is not None:
        samples["train"] = Samples(data.train, train, seed, bad, early)
    if val is not None:
        samples["val"] = Samples(data.val, val, None, bad)
    return Readers(samples, workers, batch, pin=pin)


def train_batches(
    data: DatasetPair,
    recipe: Recipe,
    seed: int,
    epoch: int,
    start: int = 0,
    reading: Reading | None = None,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """This process's batches of an epoch from its optimizer step ``start`` on.

    There are as many of equal size for each step as ``accum_steps`` says. Raises UserError where
    the batch cannot be split so, DataError at an image that cannot be used.

    Args:
        data: the data set, whose training part is read.
        recipe: its batch size, and its transforms where there is no ``reading``.
        seed: of the order of images and of every draw.
        epoch: from 0.
        start: the first optimizer step of the epoch to give.
        reading: what reads images that are not cut from memory; None: this process.
        sharding: which part of each global batch is this process's.
        ahead: takes batches before they are used; bad images count when they are used.
    """
    batch, count = recipe.global_batch_size, len(data.train)
    places = split_batch(torch.arange(min(batch, count)), batch, sharding, mix_group(recipe))
    order, steps = epoch_order(count, seed, epoch), steps_per_epoch(count, batch)
    before = epoch * steps
    chosen = {step: order[step * batch : (step + 1) * batch] for step in range(start, steps)}
    if in_memory(data, recipe):
        source = _from_memory(data, recipe, seed, epoch, chosen, places)
    else:
        now = recipe.at_epoch(epoch)
        readers = (
            reading() if reading else make_readers(data, train_transform(data, now), None, seed)
        )
        asked = [
            Asked(Request("train", tuple(indices[piece].tolist()), epoch), piece, before + step)
            for step, indices in chosen.items()
            for piece in places
        ]
        source = _read(readers, asked)
    yield from _counted(ahead(source), data.corrupt)


def val_batches(
    data: DatasetPair,
    recipe: Recipe,
    batch: int,
    reading: Reading | None = None,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """The validation images ``val_indices(len(data.val), sharding)``, each once and in order, but
    for bad ones where those are skipped: ``places`` of the batches says which ones they hold.

    Results of the processes, put one after another by rank, are in the order of the data set.
    """
    part = val_indices(len(data.val), sharding)
    chosen = [part[first : first + batch] for first in range(0, len(part), batch)]
    asked = [Asked(Request("val", tuple(one)), torch.tensor(one)) for one in chosen]
    source: Iterator[Batch]
    if in_memory(data, recipe) and isinstance(data.val, InMemoryDataset):
        images, side = data.val, image_size(data, recipe)
        source = (
            Batch(
                resize(images.at(one.places), (side, side), recipe.interpolation),
                images.labels[one.places],
                one.places,
            )
            for one in asked
        )
    else:
        readers = reading() if reading else make_readers(data, None, val_transform(data, recipe), 0)
        source = _read(readers, asked)
    yield from _counted(ahead(source), data.corrupt)


def _read(readers: Readers, asked: Sequence[Asked]) -> Iterator[Batch]:
    """What was asked for, in its order, without bad images that are left out: a batch of them alone
    is empty. Raises DataError at an image that cannot be used."""
    read = readers.read([one.request for one in asked])
    for images, one in zip(read, asked, strict=True):
        labels, places = torch.as_tensor(images.labels), one.places[torch.tensor(images.read)]
        erased, bad = tuple(images.erased), tuple(images.bad)
        yield Batch(images.pixels, labels, places, one.step, erased, bad)


def _counted(batches: Iterable[Batch], corrupt: CorruptImages) -> Iterator[Batch]:
    """The batches that hold images; bad ones are counted when they would be used, not when they
    were read ahead."""
    for one in batches:
        corrupt.add(one.bad)
        if len(one):
            yield one


def _from_memory(
    data: DatasetPair,
    recipe: Recipe,
    seed: int,
    epoch: int,
    chosen: dict[int, Tensor],
    places: list[Tensor],
) -> Iterator[Batch]:
    """The pieces of each step's chosen images, with draws made for all of them."""
    assert isinstance(data.train, InMemoryDataset)  # noqa: S101  in_memory said so
    images, side = data.train.of_epoch(seed, epoch), image_size(data, recipe.at_epoch(epoch))
    before = epoch * steps_per_epoch(len(images), recipe.global_batch_size)
    for step, indices in chosen.items():
        draw = generator(fold_in(seed, "augment", epoch, step))
        offsets = draw_offsets(len(indices), side, draw) if recipe.crop == "random_crop" else None
        flips = recipe.flip and data.flips
        mirrored = draw_mirrored(len(indices), draw) if flips else None
        for piece in places:
            pixels = resize(images.at(indices[piece]), (side, side), recipe.interpolation)
            if offsets is not None:
                pixels = shift(pixels, offsets[:, piece])
            if mirrored is not None:
                pixels = flip(pixels, mirrored[piece])
            yield Batch(pixels, images.labels[indices[piece]], piece, before + step)
