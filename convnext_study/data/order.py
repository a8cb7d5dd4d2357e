"""What each step of an epoch and each batch of a validation reads, and in which order.

It is a pure function of (seed, epoch, step), whatever an image is labelled with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from convnext_study.data.batch import Batch
from convnext_study.data.dataset import CorruptImages
from convnext_study.data.pool import Readers
from convnext_study.data.rng import fold_in, generator
from convnext_study.data.sharding import BatchSharding, val_indices
from convnext_study.data.workers import Request


@dataclass(frozen=True)
class Asked:
    """A batch to be read: the ``places`` of its images in the optimizer's batch, and its step."""

    request: Request
    places: Tensor
    step: int = 0


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch (from 0) visits ``count`` images."""
    return torch.randperm(count, generator=generator(fold_in(seed, "order", epoch)))


def steps_per_epoch(count: int, batch: int) -> int:
    """Full batches in an epoch; the rest of the images wait for the next order."""
    return max(count // batch, 1)


@dataclass(frozen=True)
class Order:
    """Which of ``count`` images each step of an epoch (from 0) takes, ``batch`` at a time."""

    count: int
    batch: int
    seed: int
    epoch: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the epoch."""
        return steps_per_epoch(self.count, self.batch)

    def number(self, step: int) -> int:
        """The optimizer's step over the whole run, of one of this epoch."""
        return self.epoch * self.steps + step

    def indices(self, step: int) -> Tensor:
        """The images of a step, (n,) int64."""
        return self._order[step * self.batch : (step + 1) * self.batch]

    def asked(self, start: int, places: Sequence[Tensor]) -> list[Asked]:
        """What is to be read from step ``start`` on, where each step's images are cut into pieces
        of these ``places``."""
        return [
            Asked(self._request(step, piece), piece, self.number(step))
            for step in range(start, self.steps)
            for piece in places
        ]

    @cached_property
    def _order(self) -> Tensor:
        return epoch_order(self.count, self.seed, self.epoch)

    def _request(self, step: int, piece: Tensor) -> Request:
        return Request("train", tuple(self.indices(step)[piece].tolist()), self.epoch)


def validation(count: int, batch: int, sharding: BatchSharding) -> list[Asked]:
    """This process's validation images, each once and in order."""
    part = val_indices(count, sharding)
    asked = [part[first : first + batch] for first in range(0, len(part), batch)]
    return [Asked(Request("val", tuple(one)), torch.tensor(one)) for one in asked]


def read_batches(readers: Readers, asked: Sequence[Asked]) -> Iterator[Batch]:
    """What was asked for, in its order, without bad images that are left out: a batch of them alone
    is empty. Raises DataError at an image that cannot be used."""
    read = readers.read([one.request for one in asked])
    for images, one in zip(read, asked, strict=True):
        labels, places = torch.as_tensor(images.labels), one.places[torch.tensor(images.read)]
        erased, bad = tuple(images.erased), tuple(images.bad)
        yield Batch(images.pixels, labels, places, one.step, erased, bad)


def counted(batches: Iterable[Batch], corrupt: CorruptImages) -> Iterator[Batch]:
    """The batches that hold images; bad ones are counted when they would be used, not when they
    were read ahead."""
    for one in batches:
        corrupt.add(one.bad)
        if len(one):
            yield one
