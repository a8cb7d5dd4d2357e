"""A data set as the engine sees it: images in memory, or images that are read on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from convnext_study.errors import UserError

OnCorruptImage = Literal["stop", "skip"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IGNORE = 255  # the class of pixels without one
# The label of an image: its class, or an array, such as a class per pixel.
Target = int | Tensor


class DataError(UserError):
    """Data cannot be used; the message names the path and says what to do."""


class CorruptImage(DataError):
    """The image ``name`` cannot be decoded; if bad images are skipped, another one replaces it in
    training and none in evaluation."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


def unreadable(path: str, error: OSError) -> DataError:
    """The error for a problem of the disk or its permissions rather than of one image."""
    return DataError(f"{path}: cannot be read ({error.strerror or error})")


class ImageDataset(Protocol):
    """Images with labels, read one at a time."""

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> tuple[Tensor, Target]:
        """An image, (3, H, W) uint8, and its label. Raises CorruptImage for a bad one."""
        ...

    def digests(self) -> dict[str, str]:
        """Digests that identify the images, each over all of them in order.

        They are of ``names``, ``labels``, ``sizes`` (in bytes) and ``content``, as far as these
        are known without reading every file.
        """
        ...


class InMemoryDataset:
    """Images of one size with a class each, available in batches."""

    if TYPE_CHECKING:  # a field in some subclasses, computed in others

        @property
        def labels(self) -> Tensor:
            """(N,) int64."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, indices: Tensor) -> Tensor:
        """The images at (n,) int64 indices: (n, 3, H, W) uint8."""
        raise NotImplementedError

    def digests(self) -> dict[str, str]:
        """As for an `ImageDataset`."""
        raise NotImplementedError

    def pixels(self, index: int) -> tuple[Tensor, int]:
        """An image, (3, H, W) uint8, and its class."""
        return self.at(torch.tensor([index]))[0], int(self.labels[index])

    def of_epoch(self, seed: int, epoch: int) -> InMemoryDataset:
        """The images of an epoch (from 0) of a run with this seed, which depend on nothing else.
        A data set may make new ones for each epoch, as many and of the same classes.
        """
        return self


@dataclass(frozen=True)
class MemoryImages(InMemoryDataset):
    """Images in memory: ``images`` (N, 3, H, W) uint8, ``labels`` (N,) int64."""

    images: Tensor
    labels: Tensor

    def at(self, indices: Tensor) -> Tensor:
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
    """What to do about images that cannot be decoded, and those found in this process.

    Workers send the names with their batches, and the training process records them: what was
    used so far, and nothing that was only read ahead.
    """

    on_corrupt: OnCorruptImage = "stop"
    names: set[str] = field(default_factory=set)
    replaced: int = 0  # how often an image was replaced, or left out of an evaluation

    def add(self, names: Iterable[str]) -> None:
        """Record images that were replaced or left out, once for each time."""
        for name in names:
            self.names.add(name)
            self.replaced += 1


@dataclass(frozen=True)
class DatasetPair:
    """A data set with a training and a validation part.

    Args:
        classes: names, in the order of the labels; for poses, the names of the joints.
        size: side of the network's square input; of uncropped images the longer side, padded.
        train: images to train on.
        val: images that are never trained on.
        mean: per channel, from 0 to 1.
        std: per channel, on the same scale.
        flips: whether a mirrored image still shows its classes (a mirrored digit does not).
        shape: height and width of the first validation image, if images are not cropped.
        one_size: whether all images have that shape, so that they can be batched.
        mirrored: for each joint, its counterpart in a mirrored image.
        measured: the joints that the metric counts.
        val_groups: (N,) int64, which validation images belong together since they show the same
            thing; None if they are independent.
        val_once: whether the validation part is evaluated once, after the last epoch: it is for
            the report, and another part for model selection.
        uri: that it was opened with.
        notes: what the data's folders contain but is not read.
        corrupt: what to do about bad images, and those found so far.
    """

    classes: tuple[str, ...]
    size: int
    train: ImageDataset
    val: ImageDataset
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flips: bool = True
    shape: tuple[int, int] = (0, 0)
    one_size: bool = True
    mirrored: tuple[int, ...] = ()
    measured: tuple[int, ...] = ()
    val_groups: Tensor | None = None
    val_once: bool = False
    uri: str = ""
    notes: tuple[str, ...] = ()
    corrupt: CorruptImages = field(default_factory=CorruptImages)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)


def check_readable(data: DatasetPair, read: int) -> None:
    """Raises DataError if no validation image was ``read``: there is no result."""
    if not read:
        raise DataError(f"{data.uri}: none of its {len(data.val)} validation images can be read")


def digest(*parts: bytes | npt.NDArray[Any]) -> str:
    """SHA-256 of bytes and of arrays of numbers, with their lengths; the same on every machine."""
    sha256 = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else _little_endian(part)
        sha256.update(len(content).to_bytes(8, "little"))
        sha256.update(content)
    return sha256.hexdigest()


def _little_endian(numbers: npt.NDArray[Any]) -> memoryview:
    ordered = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8).data


def padded_side(side: int) -> int:
    """The side of an uncropped image after padding: the next multiple of 32."""
    return -(-side // 32) * 32


def to_pil(pixels: Tensor) -> Image.Image:
    """A (3, H, W) uint8 tensor as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, C, H, W) uint8 images, scaled to 0 to 1."""
    pixels = images.double() / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    return tuple(_rounded(mean)), tuple(_rounded(std.clamp_min(1e-3)))


def _rounded(values: Tensor) -> Sequence[float]:
    return [round(float(value), 6) for value in values]
