"""Images read and transformed one by one, in this process or in others."""

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

IN_A_ROW = 100  # so many bad neighbours are not bad luck: the data set is broken

Box = tuple[int, int, int, int]  # top, left, height, width
# (3, H, W) uint8 and its label to the pixels that a network sees, also uint8, and their label, and
# what is to be erased of them.
Transform = Callable[[Tensor, Target], tuple[Tensor, Target, Box | None]]


class EraseBox(NamedTuple):
    """A box of the batch's image ``image`` in pixels, and the seed of the noise that fills it."""

    image: int
    top: int
    left: int
    height: int
    width: int
    seed: int


@dataclass(frozen=True)
class Request:
    """Images to read: of ``part``, by their places there, as ``epoch`` (from 0) draws on them."""

    part: str
    indices: tuple[int, ...]
    epoch: int = 0


@dataclass(frozen=True)
class Images:
    """What was read.

    Args:
        pixels: (n, 3, H, W) uint8, a pixel's values side by side.
        labels: of each. Classes are plain numbers, since each tensor that one process sends
            another takes a file descriptor of both; arrays are stacked, (n, ...).
        erased: what is to be erased.
        bad: names of images that could not be read: others stand in for them, or they are left out.
        read: of each image that was requested, whether it, or another for it, is among these.
    """

    pixels: Tensor
    labels: list[int] | Tensor
    erased: list[EraseBox]
    bad: list[str]
    read: list[bool]


class Samples:
    """Images with their transform, each under a seed of its own where there is one.

    In training, where there is a seed, a bad image is replaced by the next readable one of the data
    set, whatever the order of the epoch, and drawn upon with the bad one's seed: which image stands
    in never depends on how the work is split. In evaluation it is left out: another in its place
    would be counted twice.
    """

    def __init__(
        self,
        images: ImageDataset,
        transform: Transform,
        seed: int | None,
        on_bad: OnCorruptImage = "stop",
        early: tuple[int, Transform] | None = None,
    ) -> None:
        """``early``: so many epochs have another transform."""
        self.images, self.transform, self.seed, self.on_bad = images, transform, seed, on_bad
        self.early = early

    def read(self, indices: tuple[int, ...], epoch: int = 0) -> Images:
        """These images. Raises DataError at one that cannot be used."""
        if self.seed is None or get_worker_info() is not None:
            return self._read(indices, epoch)
        # In the training process itself the draws must not disturb the network's generators.
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
            place = len(labels)
            if not place:
                _, height, width = image.shape
                shape = (len(indices), height, width, 3)
                pixels = torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
            pixels[place] = image
            labels.append(label)
            if box is not None:
                erased.append(EraseBox(place, *box, fold_in(self.seed or 0, epoch, "erase", index)))
        return Images(pixels[: len(labels)], stacked(labels), erased, bad, read)

    def _originals(
        self, indices: tuple[int, ...], epoch: int
    ) -> Iterator[tuple[tuple[Tensor, Target] | None, str | None]]:
        """Images as they are stored, with their labels; and the name of each that is bad.

        In memory there are no bad ones, and many at a time are faster.
        """
        images = self.images
        if not isinstance(images, InMemoryDataset):
            yield from map(self._original, indices)
            return
        if self.seed is not None:
            images = images.of_epoch(self.seed, epoch)
        places, labels = torch.tensor(indices), images.labels
        for pixels, label in zip(images.at(places), labels[places].tolist(), strict=True):
            yield (pixels, label), None

    def _original(self, index: int) -> tuple[tuple[Tensor, Target] | None, str | None]:
        """An image as it is stored, its label, and its name where it is bad: then it is another,
        or none."""
        bad: str | None = None
        tries = min(IN_A_ROW, len(self.images)) if self.seed is not None else 1
        for candidate in range(index, index + tries):
            try:
                return self.images.pixels(candidate % len(self.images)), bad
            except CorruptImage as error:
                if self.on_bad == "stop":
                    raise
                bad = bad or error.name
        if self.seed is None:
            return None, bad
        raise DataError(f"{bad} and the {tries - 1} images after it cannot be read")


def stacked(labels: Sequence[Target]) -> list[int] | Tensor:
    """Classes as they are, arrays one above the other."""
    arrays = [label for label in labels if isinstance(label, Tensor)]
    return torch.stack(arrays) if arrays else [int(label) for label in labels]


def join(parts: list[Images], *, pin: bool = False) -> Images:
    """Images one after another; ``pin``: in memory that a GPU can copy from by itself."""
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
    return Images(pixels, labels, erased, bad, [one for part in parts for one in part.read])
