"""Batches for training and validation, which resume and split exactly.

The images of each step, and every random draw on them, are a pure function of (seed, epoch,
position): a run can resume from any step without reading earlier images, on any number of
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
from convnext_study.data.workers import EraseBox, Request, SampleReader, Transform
from convnext_study.recipes import Recipe


@dataclass(frozen=True)
class Batch:
    """Some images of one optimizer step, as they were read.

    Args:
        images: (n, 3, H, W) uint8.
        labels: (n,) int64; or an array per image, (n, H, W) uint8 with a class per pixel.
        positions: (n,) int64, of the images in the optimizer's batch over all processes; for
            validation images, in the data set.
        step: the optimizer's step, from 0 over the whole run.
        erased: boxes to fill with noise.
        bad: names of images that could not be read, and were replaced or left out.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    step: int = 0
    erased: tuple[EraseBox, ...] = ()
    bad: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def pinned(self) -> Batch:
        """With images and labels in pinned memory."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """With images and labels on a device; the rest stays on the host."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


class BatchRequest(NamedTuple):
    """A batch to read, the ``positions`` of its images in the optimizer's batch, and its step."""

    request: Request
    positions: Tensor
    step: int = 0


Reading = Callable[[], Readers]  # returns persistent readers, called only if anything is read
Ahead = Callable[[Iterable[Batch]], Iterator[Batch]]


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of ``count`` images in an epoch (from 0)."""
    return torch.randperm(count, generator=generator(fold_in(seed, "order", epoch)))


def steps_per_epoch(count: int, batch: int) -> int:
    """Full batches per epoch; the remaining images are left out of this epoch."""
    return max(count // batch, 1)


def mix_group(recipe: Recipe) -> int | None:
    """Number of images that are mixed by one draw; None without mixing."""
    return recipe.mix_group_size if recipe.mixes else None


def check_split(data: DatasetPair, recipe: Recipe, sharding: BatchSharding) -> None:
    """Raises UserError if ``sharding`` cannot divide the recipe's batch, or the one that the data
    can fill."""
    count = len(data.train)
    for candidate in (recipe, recipe.for_images(count)):
        batch = candidate.global_batch_size
        split_batch(torch.arange(min(count, batch)), batch, sharding, mix_group(candidate))


def in_memory(data: DatasetPair, recipe: Recipe) -> bool:
    """Whether batches can be sliced from memory, which is by far the fastest."""
    return isinstance(data.train, InMemoryDataset) and takes_whole_images(recipe)


def takes_whole_images(recipe: Recipe) -> bool:
    """Whether a recipe uses square images uncropped: unchanged, resized, mirrored or shifted."""
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
    """Readers of the data in ``workers`` processes, until they are closed.

    Args:
        data: what to read.
        train: transform of training images, random; None: they are not read.
        val: transform of validation images, not random.
        seed: of every draw.
        workers: processes; 0: this one.
        batch: images of the largest batch requested.
        early: number of first epochs and their transform, in place of ``train``.
        pin: return batches in pinned memory.
    """
    bad, samples = data.corrupt.on_corrupt, {}
    if train is not None:
        samples["train"] = SampleReader(data.train, train, seed, bad, early)
    if val is not None:
        samples["val"] = SampleReader(data.val, val, None, bad)
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

    Each step has ``accum_steps`` batches of equal size. Raises UserError if the batch cannot be
    split so, DataError for an image that cannot be used.

    Args:
        data: the data set, whose training part is read.
        recipe: its batch size, and its transforms if there is no ``reading``.
        seed: of the order of images and of every draw.
        epoch: from 0.
        start: the first optimizer step of the epoch.
        reading: returns readers for images that are not in memory; None: this process reads.
        sharding: this process's part of each global batch.
        ahead: prefetches batches; bad images count when they are used.
    """
    batch, count = recipe.global_batch_size, len(data.train)
    pieces = split_batch(torch.arange(min(batch, count)), batch, sharding, mix_group(recipe))
    order, steps = epoch_order(count, seed, epoch), steps_per_epoch(count, batch)
    first = epoch * steps
    chosen = {step: order[step * batch : (step + 1) * batch] for step in range(start, steps)}
    if in_memory(data, recipe):
        source = _from_memory(data, recipe, seed, epoch, chosen, pieces)
    else:
        current = recipe.at_epoch(epoch)
        readers = (
            reading() if reading else make_readers(data, train_transform(data, current), None, seed)
        )
        requests = [
            BatchRequest(Request("train", tuple(indices[part].tolist()), epoch), part, first + step)
            for step, indices in chosen.items()
            for part in pieces
        ]
        source = _read(readers, requests)
    yield from _counted(ahead(source), data.corrupt)


def val_batches(
    data: DatasetPair,
    recipe: Recipe,
    batch: int,
    reading: Reading | None = None,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """The validation images ``val_indices(len(data.val), sharding)``, each once and in order,
    without bad ones if those are skipped: ``positions`` of the batches are the images' indices.

    Results of the processes, concatenated by rank, are in the order of the data set.
    """
    part = val_indices(len(data.val), sharding)
    chosen = [part[first : first + batch] for first in range(0, len(part), batch)]
    requests = [BatchRequest(Request("val", tuple(span)), torch.tensor(span)) for span in chosen]
    source: Iterator[Batch]
    if in_memory(data, recipe) and isinstance(data.val, InMemoryDataset):
        images, side = data.val, image_size(data, recipe)
        source = (
            Batch(
                resize(images.at(request.positions), (side, side), recipe.interpolation),
                images.labels[request.positions],
                request.positions,
            )
            for request in requests
        )
    else:
        readers = reading() if reading else make_readers(data, None, val_transform(data, recipe), 0)
        source = _read(readers, requests)
    yield from _counted(ahead(source), data.corrupt)


def _read(readers: Readers, requests: Sequence[BatchRequest]) -> Iterator[Batch]:
    """The requested batches in order, without skipped bad images: a batch of only those is empty.
    Raises DataError for an image that cannot be used."""
    batches = readers.read([batch.request for batch in requests])
    for images, batch in zip(batches, requests, strict=True):
        labels, read = torch.as_tensor(images.labels), torch.tensor(images.read)
        erased, bad = tuple(images.erased), tuple(images.bad)
        yield Batch(images.pixels, labels, batch.positions[read], batch.step, erased, bad)


def _counted(batches: Iterable[Batch], corrupt: CorruptImages) -> Iterator[Batch]:
    """The batches that contain images; bad images are counted when they would be used, not when
    they were read ahead."""
    for batch in batches:
        corrupt.add(batch.bad)
        if len(batch):
            yield batch


def _from_memory(
    data: DatasetPair,
    recipe: Recipe,
    seed: int,
    epoch: int,
    chosen: dict[int, Tensor],
    pieces: list[Tensor],
) -> Iterator[Batch]:
    """The pieces of each step's chosen images, with draws made for all of them."""
    assert isinstance(data.train, InMemoryDataset)  # noqa: S101  checked by in_memory()
    images, side = data.train.of_epoch(seed, epoch), image_size(data, recipe.at_epoch(epoch))
    before = epoch * steps_per_epoch(len(images), recipe.global_batch_size)
    for step, indices in chosen.items():
        draws = generator(fold_in(seed, "augment", epoch, step))
        offsets = draw_offsets(len(indices), side, draws) if recipe.crop == "random_crop" else None
        flips = recipe.flip and data.flips
        mirrored = draw_mirrored(len(indices), draws) if flips else None
        for piece in pieces:
            pixels = resize(images.at(indices[piece]), (side, side), recipe.interpolation)
            if offsets is not None:
                pixels = shift(pixels, offsets[:, piece])
            if mirrored is not None:
                pixels = flip(pixels, mirrored[piece])
            yield Batch(pixels, images.labels[indices[piece]], piece, before + step)
