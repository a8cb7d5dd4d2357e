"""What a data set is to the engine: images in memory, or images that are read on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from convnext_study.errors import UserError

OnCorruptImage = Literal["stop", "skip"]


class DataError(UserError):
    """Data cannot be used; the message names the path and says what to do."""


class CorruptImage(DataError):
    """The image ``name`` cannot be decoded; where bad ones are skipped another takes its place in
    training, and none in evaluation."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


def unreadable(path: str, error: OSError) -> DataError:
    """What to raise where the disk or the rights are in the way: it is no image's own trouble."""
    return DataError(f"{path}: cannot be read ({error.strerror or error})")


class ImageDataset(Protocol):
    """Images with labels, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """An RGB image and its label. Raises CorruptImage where it cannot be decoded."""
        ...

    def digests(self) -> dict[str, str]:
        """What tells these images from others, each kind in a digest of all images in order.

        Kinds are ``names``, ``labels``, ``sizes`` (in bytes) and ``content``, as far as they can
        be had without reading every file.
        """
        ...


# What an image is labelled with: its class, or an array, such as a class for every pixel.
Target = int | torch.Tensor


@runtime_checkable
class PixelDataset(Protocol):
    """Images with labels that are had as tensors, one at a time."""

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> tuple[torch.Tensor, Target]:
        """An image, (3, H, W) uint8, and its label. Raises CorruptImage at a bad one."""
        ...

    def digests(self) -> dict[str, str]:
        """As an `ImageDataset`'s."""
        ...


class DataParts(Protocol):
    """A data set with a training and a validation part, whatever its labels are."""

    @property
    def uri(self) -> str:
        """That it was opened by."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel, of 1."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Of each channel, of 1."""
        ...

    @property
    def train(self) -> ImageDataset | PixelDataset:
        """What is trained on."""
        ...

    @property
    def val(self) -> ImageDataset | PixelDataset:
        """What is never trained on."""
        ...

    @property
    def corrupt(self) -> CorruptImages:
        """What is done about bad images, and which ones were met."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is in the data's folders and not read, in a line each."""
        ...


@runtime_checkable
class InMemoryDataset(Protocol):
    """Images of one size that can be had as tensors, many at a time."""

    @property
    def labels(self) -> torch.Tensor:
        """(N,) int64."""
        ...

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at (n,) int64 indices: (n, 3, H, W) uint8."""
        ...


@runtime_checkable
class RenewedDataset(Protocol):
    """Images that are other ones in every epoch, as many and with the same labels."""

    def of_epoch(self, seed: int, epoch: int) -> ImageDataset:
        """The images of an epoch (from 0) of a run with this seed: a function of these alone."""
        ...


def images_of_epoch(images: ImageDataset, seed: int, epoch: int) -> ImageDataset:
    """What a run with this seed trains on in an epoch (from 0)."""
    return images.of_epoch(seed, epoch) if isinstance(images, RenewedDataset) else images


@dataclass(frozen=True)
class MemoryImages:
    """Images held in memory: ``images`` (N, 3, H, W) uint8, ``labels`` (N,) int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return to_pil(self.images[index]), int(self.labels[index])

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at (n,) int64 indices: (n, 3, H, W) uint8."""
        return self.images[indices]

    def digests(self) -> dict[str, str]:
        """SHA-256 of the pixels and of the labels."""
        return {
            "content": digest(self.images.numpy()),
            "labels": digest(self.labels.numpy()),
        }


@dataclass
class CorruptImages:
    """What is done about images that cannot be decoded, and which ones this process met.

    Workers send the names along with their batches, so the record is the training process's own:
    it holds what was used so far and nothing that was only read ahead.
    """

    on_corrupt: OnCorruptImage = "stop"
    names: set[str] = field(default_factory=set)
    replaced: int = 0  # how often one was, or was left out of an evaluation

    def add(self, names: Iterable[str]) -> None:
        """Record images that were replaced or left out, each time that one was."""
        for name in names:
            self.names.add(name)
            self.replaced += 1


@dataclass(frozen=True)
class DatasetPair:
    """A data set with a training and a validation part.

    ``size`` is the side of the square images a network sees; ``flips`` whether a mirrored image
    still shows its class (a mirrored digit does not); ``corrupt`` counts bad images.
    ``val_groups`` (N,) int64 says which validation images belong together, since they show the
    same thing; None where they are independent. ``val_once`` says that they are to be looked at
    once, after the last epoch: they are there to report by, and another part to choose by.
    ``notes`` says what is in the data's folders and not read.
    """

    uri: str
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: ImageDataset
    val: ImageDataset
    flips: bool = True
    val_groups: torch.Tensor | None = None
    val_once: bool = False
    notes: tuple[str, ...] = ()
    corrupt: CorruptImages = field(default_factory=CorruptImages)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)


def check_readable(data: DataParts, read: int) -> None:
    """Raises DataError where no image of the validation part was ``read``: there is no result."""
    if not read:
        raise DataError(f"{data.uri}: none of its {len(data.val)} validation images can be read")


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def digest(*parts: bytes | npt.NDArray[Any]) -> str:
    """SHA-256 of bytes and of arrays of numbers, with their lengths; the same on every machine."""
    found = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else _little_endian(part)
        found.update(len(content).to_bytes(8, "little"))
        found.update(content)
    return found.hexdigest()


def _little_endian(numbers: npt.NDArray[Any]) -> memoryview:
    ordered = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8).data


def to_pil(pixels: torch.Tensor) -> Image.Image:
    """A (3, H, W) uint8 tensor as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) uint8 images, of 255."""
    pixels = images.double() / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    return tuple(_rounded(mean)), tuple(_rounded(std.clamp_min(1e-3)))


def _rounded(values: torch.Tensor) -> Sequence[float]:
    return [round(float(value), 6) for value in values]
