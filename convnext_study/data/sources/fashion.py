"""``fashion`` or ``fashion:PATH``: photographs of clothes, Fashion-MNIST (Xiao et al., 2017).

Zalando's product photographs in grey, 28x28, in ten classes. The IDX files may be compressed or
not; Debian has them as a package. Images are resized to 32x32 and three channels, like `digits`,
bit for bit the same on every machine: all sums are exact in 32 bits.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from convnext_study.data.dataset import DataError, DatasetPair, MemoryImages, channel_statistics
from convnext_study.data.sources import SOURCES, OpenRequest
from convnext_study.data.sources.digits import AT_ONCE, SIZE, upscale
from convnext_study.errors import first_line

CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
STORED = 28  # side in pixels, in the files
MOST_IMAGES = 60_000  # in a part
BYTES = 0x800  # the magic number of an IDX file of bytes, without its number of dimensions


def open_fashion(path: str, request: OpenRequest) -> DatasetPair:
    """60,000 training and 10,000 test images, in memory (215 MB).

    The option ``train`` limits the number of training images, always the same ones and equally many
    per class. Raises DataError if the files are missing, damaged or cannot be fetched.
    """
    root = Path(path or SOURCES["fashion"].default_path).expanduser()
    folder = _folder(root)
    if folder is None and request.download and path:
        _fetch(root)
        folder = _folder(root)
    if folder is None:
        raise DataError(
            f"{root}: contains no Fashion-MNIST (train-images-idx3-ubyte.gz and three more); apt "
            "install dataset-fashion-mnist, or use fashion:PATH with --download"
        )
    (train, labels), (val, val_labels) = (_read_part(folder, name) for name in ("train", "t10k"))
    if (count := request.options.get("train")) is not None:
        chosen = _balanced(labels, count)
        train, labels = train[chosen], labels[chosen]
    images = upscale(train)
    mean, std = channel_statistics(images[:AT_ONCE, :1])
    return DatasetPair(
        classes=CLASSES,
        size=SIZE,
        mean=mean * 3,
        std=std * 3,
        train=MemoryImages(images, labels),
        val=MemoryImages(upscale(val), val_labels),
        val_once=True,
    )


def _folder(root: Path) -> Path | None:
    """The folder with the files; None if there is none."""
    matches = (next(root.glob(pattern), None) for pattern in SOURCES["fashion"].files)
    return next((file.parent for file in matches if file), None)


def _fetch(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(root), download=True)
    except (RuntimeError, OSError, EOFError) as error:
        raise DataError(
            f"{root}: Fashion-MNIST cannot be downloaded ({first_line(error)})"
        ) from error


def _read_part(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 28, 28) uint8 and their classes (n,) int64."""
    pixels = _read(folder / f"{name}-images-idx3-ubyte", STORED, STORED)
    labels = _read(folder / f"{name}-labels-idx1-ubyte")
    if len(pixels) != len(labels) or not len(labels) or labels.max() >= len(CLASSES):
        raise DataError(
            f"{folder}: {name} has {len(pixels)} images and {len(labels)} labels, up to "
            f"{labels.max(initial=0)}; expected one label per image, below {len(CLASSES)}; "
            "download it again"
        )
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def _read(path: Path, *shape: int) -> np.ndarray:
    """The (n, *shape) bytes of an IDX file, compressed or not; reads no more than these."""
    packed = path.with_name(f"{path.name}.gz")
    where = path if path.exists() else packed
    try:
        with path.open("rb") if where is path else gzip.open(packed, "rb") as file:
            magic, count, *sides = np.frombuffer(
                file.read(8 + 4 * len(shape)), dtype=">u4"
            ).tolist()
            if (magic, *sides) != (BYTES + 1 + len(shape), *shape) or count > MOST_IMAGES:
                raise ValueError("another header than Fashion-MNIST's")
            size = count * math.prod(shape)
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{where}: cannot be read ({first_line(error)}); install or download it again"
        ) from None
    if len(content) != size:
        raise DataError(
            f"{where}: does not have the length in its header; install or download it again"
        )
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(count, *shape)


def _balanced(labels: torch.Tensor, text: str) -> torch.Tensor:
    """(n,) bool: the first images of each class, so that there are ``text`` in total."""
    count = int(text) if text.isdecimal() and len(text) < 10 else 0
    per_class, remainder = divmod(count, len(CLASSES))
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(CLASSES)):
        chosen[(labels == label).nonzero().flatten()[: per_class + (label < remainder)]] = True
    if count < len(CLASSES) or int(chosen.sum()) != count:
        raise DataError(
            f"fashion: train={text:.20} is not a number of training images from {len(CLASSES)} to "
            f"{len(labels)} with equally many per class"
        )
    return chosen
