"""Read and transform images one by one, in this process or in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from convnext_study.data.dataset import (
    CorruptImage,
    DataError,
    ImageDataset,
    InMemoryDataset,
    OnCorruptImage,
    Target,
)
from convnext_study.data.rng import fold_in, kept_generators, seed_everything

MOST_CONSECUTIVE = 100  # more consecutive bad images mean that the data set is broken

Box = tuple[int, int, int, int]  # top, left, height, width
# (3, H, W) uint8 and its label to the network's pixels, also uint8, their label, and the box to
# erase.
Transform = Callable[[Tensor, Target], tuple[Tensor, Target, Box | None]]


class EraseBox(NamedTuple):
    """A box in pixels of image ``image`` of the batch, and the seed of the noise that fills it."""

    image: int
    top: int
    left: int
    height: int
    width: int
    seed: int


@dataclass(frozen=True)
class Request:
    """Images to read: of ``part``, by index, with the random draws of ``epoch`` (from 0)."""

    part: str
    indices: tuple[int, ...]
    epoch: int = 0


@dataclass(frozen=True)
class Images:
    """Images as they were read.

    Args:
        pixels: (n, 3, H, W) uint8, channels last in memory.
        labels: one per image. Classes are plain numbers, since each tensor sent to another process
            takes a file descriptor in both; arrays are stacked, (n, ...).
        erased: boxes to erase.
        bad: names of images that could not be read, and were replaced or left out.
        read: for each requested image, whether it or its replacement is among these.
    """

    pixels: Tensor
    labels: list[int] | Tensor
    erased: list[EraseBox]
    bad: list[str]
    read: list[bool]


class SampleReader:
    """Reads and transforms images, each with its own seed if there is one.

    In training, where there is a seed, a bad image is replaced by the next readable one of the data
    set, whatever the order of the epoch, and transformed with the bad one's seed: the replacement
    never depends on how the work is split. In evaluation a bad image is left out: a replacement
    would count twice.
    """

    def __init__(
        self,
        images: ImageDataset,
        transform: Transform,
        seed: int | None,
        on_bad: OnCorruptImage = "stop",
        early: tuple[int, Transform] | None = None,
    ) -> None:
        """``early``: the number of first epochs with another transform, and that transform."""
        self.images, self.transform, self.seed, self.on_bad = images, transform, seed, on_bad
        self.early = early

    def read(self, indices: tuple[int, ...], epoch: int = 0) -> Images:
        """These images, transformed. Raises DataError for one that cannot be used."""
        if self.seed is None or get_worker_info() is not None:
            return self._read(indices, epoch)
        # In the training process the draws must not advance the network's generators.
        with kept_generators():
            return self._read(indices, epoch)

    def _read(self, indices: tuple[int, ...], epoch: int) -> Images:
        pixels = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        labels: list[Target] = []
        erased: list[EraseBox] = []
        bad: list[str] = []
        read: list[bool] = []
        transform = self.early[1] if self.early and epoch < self.early[0] else self.transform
        for index, (original, name) in zip(indices, self._originals(indices, epoch), strict=True):
            bad += [] if name is None else [name]
            read.append(original is not None)
            if original is None:
                continue
            if self.seed is not None:
                seed_everything(fold_in(self.seed, epoch, "augment", index))
            image, label, box = transform(*original)
            slot = len(labels)
            if not slot:
                _, height, width = image.shape
                shape = (len(indices), height, width, 3)
                pixels = torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
            pixels[slot] = image
            labels.append(label)
            if box is not None:
                erased.append(EraseBox(slot, *box, fold_in(self.seed or 0, epoch, "erase", index)))
        return Images(pixels[: len(labels)], stacked(labels), erased, bad, read)

    def _originals(
        self, indices: tuple[int, ...], epoch: int
    ) -> Iterator[tuple[tuple[Tensor, Target] | None, str | None]]:
        """Untransformed images with their labels; and the name of each bad one.

        Images in memory are never bad, and are faster to read many at a time.
        """
        images = self.images
        if not isinstance(images, InMemoryDataset):
            yield from map(self._original, indices)
            return
        if self.seed is not None:
            images = images.of_epoch(self.seed, epoch)
        positions, labels = torch.tensor(indices), images.labels
        for pixels, label in zip(images.at(positions), labels[positions].tolist(), strict=True):
            yield (pixels, label), None

    def _original(self, index: int) -> tuple[tuple[Tensor, Target] | None, str | None]:
        """An untransformed image with its label, or the replacement of a bad one or None; and the
        bad one's name."""
        bad: str | None = None
        tries = min(MOST_CONSECUTIVE, len(self.images)) if self.seed is not None else 1
        for candidate in range(index, index + tries):
            try:
                return self.images.pixels(candidate % len(self.images)), bad
            except CorruptImage as error:
                if self.on_bad == "stop":
                    raise
                bad = bad or error.name
        if self.seed is None:
            return None, bad
        raise DataError(f"{bad} and the {tries - 1} images after it cannot be decoded")


def stacked(labels: Sequence[Target]) -> list[int] | Tensor:
    """Classes as a list; arrays stacked into one tensor."""
    arrays = [label for label in labels if isinstance(label, Tensor)]
    return torch.stack(arrays) if arrays else [int(label) for label in labels]


def join(parts: list[Images], *, pin: bool = False) -> Images:
    """Concatenate images; ``pin``: into pinned memory."""
    filled = [part for part in parts if len(part.labels)] or parts[:1]
    erased: list[EraseBox] = []
    count = 0
    for part in filled:
        erased += [box._replace(image=box.image + count) for box in part.erased]
        count += len(part.labels)
    pixels = filled[0].pixels
    if pin or len(filled) > 1:
        shape = (count, *pixels.shape[2:], pixels.shape[1])
        rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        torch.cat([part.pixels.permute(0, 2, 3, 1) for part in filled], out=rows)
        pixels = rows.permute(0, 3, 1, 2)
    labels = stacked([label for part in filled for label in part.labels])
    bad = [name for part in parts for name in part.bad]
    return Images(pixels, labels, erased, bad, [read for part in parts for read in part.read])
