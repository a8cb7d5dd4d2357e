"""Batches of images and their label maps, exact to resume and to split as `data.loader`'s are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from convnext_study.data.batch import Batch
from convnext_study.data.dense.dataset import DenseData
from convnext_study.data.dense.transforms import TrainTransform, whole_image
from convnext_study.data.loader import Ahead
from convnext_study.data.order import Order, read_batches, validation
from convnext_study.data.pool import Readers
from convnext_study.data.sharding import WHOLE, BatchSharding, split_batch
from convnext_study.data.workers import JointTransform, Samples


def make_readers(
    data: DenseData,
    train: TrainTransform,
    seed: int,
    workers: int = 0,
    batch: int = 1,
    *,
    divisor: int = 1,
    pin: bool = False,
) -> Readers:
    """What reads the data, in so many processes, until it is closed.

    Args:
        data: what is read.
        train: what happens to training pairs; validation images are whole.
        seed: of every draw.
        workers: processes; 0: this one.
        batch: pairs of the largest batch requested.
        divisor: of the sides of validation images, which are padded to it.
        pin: give batches in memory that a GPU can copy from by itself.
    """
    bad = data.corrupt.on_corrupt
    whole = JointTransform(whole_image(data, divisor))
    samples = {
        "train": Samples(data.train, JointTransform(train), seed, bad),
        "val": Samples(data.val, whole, None, bad),
    }
    return Readers(samples, workers, batch, pin=pin)


def train_batches(
    data: DenseData,
    order: Order,
    readers: Readers,
    start: int = 0,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """This process's batches of an epoch from its optimizer step ``start`` on.

    Raises UserError where the batch cannot be split so, DataError at a pair that cannot be used.
    """
    places = split_batch(torch.arange(min(order.batch, order.count)), order.batch, sharding)
    return _counted(data, ahead(read_batches(readers, order.asked(start, places))))


def val_batches(
    data: DenseData,
    batch: int,
    readers: Readers,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """The validation images of this process, each once and in order; one at a time where they
    differ in size."""
    asked = validation(len(data.val), val_batch(data, batch), sharding)
    return _counted(data, ahead(read_batches(readers, asked)))


def val_batch(data: DenseData, most: int) -> int:
    """Validation images that are taken at a time."""
    return most if data.one_size else 1


def _counted(data: DenseData, batches: Iterable[Batch]) -> Iterator[Batch]:
    for one in batches:
        data.corrupt.add(one.bad)  # when it is used, not when it was read ahead
        yield one
