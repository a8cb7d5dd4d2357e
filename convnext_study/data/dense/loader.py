"""Batches of images and what moves along with them, such as label maps and joints.

As exact to resume and to split as `data.loader`'s are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from convnext_study.data.batch import Batch
from convnext_study.data.dataset import DataParts
from convnext_study.data.loader import Ahead
from convnext_study.data.order import Order, counted, read_batches, validation
from convnext_study.data.pool import Readers
from convnext_study.data.sharding import WHOLE, BatchSharding, split_batch
from convnext_study.data.workers import JointTransform, Samples, Transform


def make_readers(
    data: DataParts,
    train: Transform | JointTransform,
    val: Transform | JointTransform,
    seed: int,
    workers: int = 0,
    batch: int = 1,
    *,
    pin: bool = False,
) -> Readers:
    """What reads the data, in so many processes, until it is closed.

    Args:
        data: what is read.
        train: what happens to training images, with draws.
        val: what happens to validation images, without.
        seed: of every draw.
        workers: processes; 0: this one.
        batch: images of the largest batch requested.
        pin: give batches in memory that a GPU can copy from by itself.
    """
    bad = data.corrupt.on_corrupt
    samples = {
        "train": Samples(data.train, train, seed, bad),
        "val": Samples(data.val, val, None, bad),
    }
    return Readers(samples, workers, batch, pin=pin)


def train_batches(
    data: DataParts,
    order: Order,
    readers: Readers,
    start: int = 0,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """This process's batches of an epoch from its optimizer step ``start`` on.

    Raises UserError where the batch cannot be split so, DataError at an image that cannot be used.
    """
    places = split_batch(torch.arange(min(order.batch, order.count)), order.batch, sharding)
    return counted(ahead(read_batches(readers, order.asked(start, places))), data.corrupt)


def val_batches(
    data: DataParts,
    batch: int,
    readers: Readers,
    sharding: BatchSharding = WHOLE,
    ahead: Ahead = iter,
) -> Iterator[Batch]:
    """The validation images of this process, each once and in order, but for bad ones where those
    are skipped."""
    asked = validation(len(data.val), batch, sharding)
    return counted(ahead(read_batches(readers, asked)), data.corrupt)
