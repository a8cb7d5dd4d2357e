"""Encoded images in files and in tar archives, a million of them without a million objects.

Names, labels and places are arrays: worker processes share them, where a list of a million
Python strings is copied page by page into each of them as reference counts are touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from convnext_study.training.data.decode import decode_image, decode_pixels
from convnext_study.training.data.images import DataError

Ints = npt.NDArray[np.int64]


class Source(Protocol):
    """Where encoded images are."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call the image in an error: its path."""
        ...

    def label(self, index: int) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded image. Raises DataError where the file cannot be read."""
        ...


@dataclass(frozen=True)
class EncodedImages:
    """An image set over a source, decoded when asked for."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = decode_image(self.source.read(index), self.source.name(index))
        return image, self.source.label(index)

    def pixels(self, index: int) -> tuple[torch.Tensor, int]:
        """The image as a (3, H, W) uint8 tensor, and its label. Raises BadImage."""
        pixels = decode_pixels(self.source.read(index), self.source.name(index))
        return pixels, self.source.label(index)


class Names:
    """Many strings in one array of bytes."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends: Ints = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())


class Files:
    """One image a file."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int]) -> None:
        self._paths, self._labels = Names(paths), np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return self._paths[index]

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def read(self, index: int) -> bytes:
        return read_bytes(self._paths[index])


@dataclass(frozen=True)
class Member:
    """One image in an archive: which archive, its name there, where its bytes are, its label."""

    archive: int
    name: str
    offset: int
    size: int
    label: int


class Archives:
    """Images inside uncompressed tar archives, each read by its place in the file.

    No archive is kept open: a file position shared by forked workers would mix up their images.
    """

    def __init__(self, archives: Sequence[str], members: Sequence[Member]) -> None:
        self._archives = tuple(archives)
        self._names = Names([member.name for member in members])
        self._places: Ints = np.array(
            [(one.archive, one.offset, one.size, one.label) for one in members], dtype=np.int64
        ).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self._places)

    def name(self, index: int) -> str:
        return f"{self._archives[self._places[index, 0]]}:{self._names[index]}"

    def label(self, index: int) -> int:
        return int(self._places[index, 3])

    def read(self, index: int) -> bytes:
        archive, offset, size, _ = map(int, self._places[index])
        return read_bytes(self._archives[archive], offset, size)


def read_bytes(path: str, offset: int = 0, size: int = -1) -> bytes:
    """A file's bytes, or ``size`` of them from ``offset`` on. Raises DataError, one line.

    A file that cannot be read is trouble with the disk or the rights, not a bad image: it stops
    the run even where bad images are skipped, so that a lost mount is not taken for bad data.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  a Path for each read costs a tenth of it
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
