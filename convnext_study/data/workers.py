"""Images read and transformed one by one, in this process or in others.

Who reads does not raise: what is wrong with an image travels to the training process as a value,
so that the user reads one line instead of a traceback of another process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from convnext_study.data.batch import Erased
from convnext_study.data.dataset import (
    CorruptImage,
    DataError,
    ImageDataset,
    InMemoryDataset,
    OnCorruptImage,
    images_of_epoch,
)
from convnext_study.data.decode import to_tensor
from convnext_study.data.encoded import EncodedImages
from convnext_study.data.rng import fold_in

IN_A_ROW = 100  # so many bad neighbours are not bad luck: the data set is broken

Box = tuple[int, int, int, int]  # top, left, height, width
# (3, H, W) uint8 to the pixels that a network sees, also uint8, and what is to be erased of them.
Transform = Callable[[Tensor], tuple[Tensor, Box | None]]


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
        labels: of each. Plain numbers, since each tensor that one process sends another takes a
            file descriptor of both.
        erased: what is to be erased.
        bad: names of images that could not be read and that others stand in for.
    """

    pixels: Tensor
    labels: list[int]
    erased: list[Erased]
    bad: list[str]


class Samples:
    """Images with their transform, each under a seed of its own where there is one.

    A bad image is replaced by the next readable one of the data set, whatever the order of the
    epoch, and drawn upon with the bad one's seed: which image stands in never depends on how the
    work is split.
    """

    def __init__(
        self,
        images: ImageDataset,
        transform: Transform,
        seed: int | None,
        on_bad: OnCorruptImage = "stop",
    ) -> None:
        self.images, self.transform, self.seed, self.on_bad = images, transform, seed, on_bad

    def read(self, indices: tuple[int, ...], epoch: int = 0) -> Images | DataError:
        """These images, or the first trouble with them."""
        if self.seed is None or get_worker_info() is not None:
            return self._read_or_error(indices, epoch)
        # In the training process itself the draws must not disturb the network's generators.
        before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
        try:
            return self._read_or_error(indices, epoch)
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])

    def _read_or_error(self, indices: tuple[int, ...], epoch: int) -> Images | DataError:
        try:
            return self._read(indices, epoch)
        except DataError as error:
            return error

    def _read(self, indices: tuple[int, ...], epoch: int) -> Images:
        pixels: Tensor | None = None
        labels: list[int] = []
        erased: list[Erased] = []
        bad: list[str] = []
        for place, (original, label, more) in enumerate(self._originals(indices, epoch)):
            index = indices[place]
            image, box = self._transformed(original, index, epoch)
            if pixels is None:
                _, height, width = image.shape
                shape = (len(indices), height, width, 3)
                pixels = torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
            pixels[place] = image
            labels.append(label)
            bad += more
            if box is not None:
                erased.append(Erased(place, *box, fold_in(self.seed or 0, epoch, "erase", index)))
        assert pixels is not None  # noqa: S101  nobody asks for no images
        return Images(pixels, labels, erased, bad)

    def _originals(
        self, indices: tuple[int, ...], epoch: int
    ) -> Iterator[tuple[Tensor, int, list[str]]]:
        """Images as they are stored, with their labels and the names of bad ones they stand in for.

        In memory there are no bad ones, and many at a time are faster.
        """
        images = self.images
        if self.seed is not None:
            images = images_of_epoch(images, self.seed, epoch)
        if not isinstance(images, InMemoryDataset):
            yield from map(self._original, indices)
            return
        places, labels = torch.tensor(indices), images.labels
        for pixels, label in zip(images.at(places), labels[places].tolist(), strict=True):
            yield pixels, label, []

    def _original(self, index: int) -> tuple[Tensor, int, list[str]]:
        bad: list[str] = []
        for candidate in range(index, index + min(IN_A_ROW, len(self.images))):
            try:
                return *read_pixels(self.images, candidate % len(self.images)), bad
            except CorruptImage as error:
                if self.on_bad == "stop":
                    raise
                bad.append(error.name)
        raise DataError(f"{bad[0]} and the {len(bad) - 1} images after it cannot be read")

    def _transformed(self, pixels: Tensor, index: int, epoch: int) -> tuple[Tensor, Box | None]:
        if self.seed is not None:
            number = fold_in(self.seed, epoch, "augment", index)
            # Of torch only the CPU's generator, which is all that is drawn from here.
            torch.default_generator.manual_seed(number)
            np.random.seed(number % 2**32)
            random.seed(number)
        return self.transform(pixels)


def read_pixels(images: ImageDataset, index: int) -> tuple[Tensor, int]:
    """An image as a (3, H, W) uint8 tensor, and its label. Raises CorruptImage."""
    if isinstance(images, EncodedImages):
        return images.pixels(index)
    image, label = images[index]
    return to_tensor(image), label


def join(parts: list[Images], *, pin: bool = False) -> Images:
    """Images one after another; ``pin``: in memory that a GPU can copy from by itself."""
    labels: list[int] = []
    erased: list[Erased] = []
    for part in parts:
        erased += [box._replace(image=box.image + len(labels)) for box in part.erased]
        labels += part.labels
    pixels = parts[0].pixels
    if pin or len(parts) > 1:
        shape = (len(labels), *pixels.shape[2:], pixels.shape[1])
        rows = torch.empty(shape, dtype=torch.uint8, pin_memory=pin)
        torch.cat([part.pixels.permute(0, 2, 3, 1) for part in parts], out=rows)
        pixels = rows.permute(0, 3, 1, 2)
    return Images(pixels, labels, erased, [name for part in parts for name in part.bad])
