"""Images read and transformed one by one, in this process or in workers.

A worker does not raise: what is wrong with an image travels to the training process as a value,
so that the user reads one line instead of a worker's traceback.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from convnext_study.errors import Failed
from convnext_study.training.data.decode import to_tensor
from convnext_study.training.data.files import EncodedImages
from convnext_study.training.data.images import (
    BadImage,
    BadImages,
    DataError,
    ImageSet,
    OnBadImage,
    TensorImages,
)
from convnext_study.training.seeds import derive, generator

IN_A_ROW = 100  # so many bad neighbours are not bad luck: the data set is broken

# (3, H, W) uint8 to float32, written to the place given, if any, and returned.
Transform = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


# Transformed images (n, 3, H, W), labels (n,), names of bad images that others stand in for.
Batch = tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]


class Samples(Dataset[Batch | DataError]):
    """Images with their transform, each under a seed of its own where there is one.

    A bad image is replaced by the next readable one of the data set, whatever the order of the
    epoch, and drawn upon with the bad one's seed: which image stands in never depends on how the
    work is split.
    """

    def __init__(
        self,
        images: ImageSet,
        transform: Transform,
        seed: tuple[int, int] | None,
        on_bad: OnBadImage = "stop",
    ) -> None:
        self.images, self.transform, self.seed, self.on_bad = images, transform, seed, on_bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch | DataError:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch | DataError:
        """A whole batch, as the loader asks for it, or the first trouble in it."""
        if self.seed is None or get_worker_info() is not None:
            return self._batch_or_error(indices)
        # In the training process itself the draws must not disturb the network's generators.
        before = (torch.get_rng_state(), np.random.get_state(), random.getstate())
        try:
            return self._batch_or_error(indices)
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])
            random.setstate(before[2])

    def _batch_or_error(self, indices: list[int]) -> Batch | DataError:
        try:
            return self._batch(indices)
        except DataError as error:
            return error

    def _batch(self, indices: list[int]) -> Batch:
        first, label, bad = self._sample(indices[0])
        _, height, width = first.shape
        pixels = first.new_empty(len(indices), height, width, 3).permute(0, 3, 1, 2)
        pixels[0], labels = first, [label]
        for place, index in zip(pixels[1:], indices[1:], strict=True):
            _, label, more = self._sample(index, place)
            labels.append(label)
            bad += more
        return pixels, torch.tensor(labels, dtype=torch.int64), bad

    def _sample(
        self, index: int, place: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, int, tuple[str, ...]]:
        """One transformed image, its label, and the names of bad images it stands in for."""
        bad: list[str] = []
        for candidate in range(index, index + min(IN_A_ROW, len(self))):
            try:
                pixels, label = read_pixels(self.images, candidate % len(self))
            except BadImage as error:
                if self.on_bad == "stop":
                    raise
                bad.append(error.name)
                continue
            return self._transformed(pixels, index, place), label, tuple(bad)
        raise DataError(f"{bad[0]} and the {len(bad) - 1} images after it cannot be read")

    def _transformed(
        self, pixels: torch.Tensor, index: int, place: torch.Tensor | None
    ) -> torch.Tensor:
        if self.seed is not None:
            seed, epoch = self.seed
            number = derive(seed, epoch, "augment", index)
            # Of torch only the CPU's generator, which is all that is drawn from here.
            torch.default_generator.manual_seed(number)
            np.random.seed(number % 2**32)
            random.seed(number)
        return self.transform(pixels, place)


def read_pixels(images: ImageSet, index: int) -> tuple[torch.Tensor, int]:
    """An image as a (3, H, W) uint8 tensor, and its label. Raises BadImage."""
    if isinstance(images, EncodedImages):
        return images.pixels(index)
    if isinstance(images, TensorImages):
        return images.at(torch.tensor([index]))[0], int(images.labels[index])
    image, label = images[index]
    return to_tensor(image), label


def load(
    samples: Samples, batches: list[list[int]], bad: BadImages, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of these indices: images (n, 3, H, W) and labels (n,); bad images are recorded.

    Raises DataError at an image that cannot be used, Failed where a worker was killed.
    """
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,  # Samples give whole batches
        worker_init_fn=_one_thread if workers else None,
        # Its own generator: the loader draws a base seed, which must not move the global one.
        generator=generator(0),
    )
    try:
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            pixels, labels, names = batch
            bad.add(names)
            yield pixels, labels
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise Failed(
            f"a process that reads images ended ({str(error).splitlines()[0]}); where memory, or "
            "shared memory in a container, is short, use fewer --workers"
        ) from None


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
