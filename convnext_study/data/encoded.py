"""Encoded images in files and in tar archives, a million of them without a million objects.

Names, labels and positions are arrays, which worker processes share. A list of a million Python
strings would be copied page by page into each of them as reference counts are touched.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from convnext_study.data.dataset import DataError, digest, unreadable
from convnext_study.data.decode import decode_pixels

Ints = npt.NDArray[np.int64]


class Names:
    """Many strings in one array of bytes."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends: Ints = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    @classmethod
    def of(cls, text: bytes, ends: Ints) -> Names:
        """The names from the concatenated bytes and ends that `parts` returned."""
        names = cls(())
        names._bytes, names._ends = np.frombuffer(text, dtype=np.uint8), ends
        return names

    def parts(self) -> tuple[bytes, Ints]:
        """The concatenated bytes, and where each string ends in them."""
        return self._bytes.tobytes(), self._ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]].tobytes())

    def digest(self) -> str:
        """SHA-256 of the strings in their order."""
        return digest(self._bytes, self._ends)


class EncodedImages(ABC):
    """Encoded images with a class each, decoded on demand.

    ``notes`` says which files are not read; ``names`` are relative to the data's folder.
    """

    names: Names

    def __init__(self, labels: Sequence[int] | Ints, notes: tuple[str, ...] = ()) -> None:
        self.labels: Ints = np.asarray(labels, dtype=np.int64)
        self.notes = notes

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's path, for error messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image. Raises DataError if the file cannot be read."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """As for an `ImageDataset`, without reading the images."""

    def pixels(self, index: int) -> tuple[torch.Tensor, int]:
        """The image as a (3, H, W) uint8 tensor, and its label. Raises CorruptImage."""
        return decode_pixels(self.read(index), self.name(index)), int(self.labels[index])


class Files(EncodedImages):
    """One image per file, in ``folder``, given by path and size in bytes.

    Raises ValueError if a path is not in the folder.
    """

    def __init__(
        self,
        folder: str,
        files: Sequence[tuple[str, int]],
        labels: Sequence[int],
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(labels, notes)
        self._start = folder if folder.endswith(os.sep) else folder + os.sep
        if not all(path.startswith(self._start) for path, _ in files):
            raise ValueError(f"not all of these files are in {folder}")
        self.names = Names([path[len(self._start) :] for path, _ in files])
        self._sizes: Ints = np.array([size for _, size in files], dtype=np.int64)

    def name(self, index: int) -> str:
        """The path of the file."""
        return self._start + self.names[index]

    def read(self, index: int) -> bytes:
        """The bytes of the file. Raises DataError if it cannot be read."""
        return read_bytes(self.name(index))

    def digests(self) -> dict[str, str]:
        """Names are relative to the folder, so that it may be moved."""
        return {
            "names": self.names.digest(),
            "labels": digest(self.labels),
            "sizes": digest(self._sizes),
        }


@dataclass(frozen=True)
class Member:
    """An image in an archive: the archive's number, its name, position, size and label."""

    archive: int
    name: str
    offset: int
    size: int
    label: int


class Archives(EncodedImages):
    """Images inside uncompressed tar archives, each read by its position in the file.

    No archive is kept open: a file position shared by forked workers would mix up their images.
    """

    def __init__(self, archives: Sequence[str], members: Sequence[Member]) -> None:
        super().__init__([member.label for member in members])
        self._archives = tuple(archives)
        self.names = Names([member.name for member in members])
        locations = [(member.archive, member.offset, member.size) for member in members]
        self._locations: Ints = np.array(locations, dtype=np.int64).reshape(-1, 3)

    def name(self, index: int) -> str:
        """The archive's path and the member's name, with a colon between them."""
        return f"{self._archives[self._locations[index, 0]]}:{self.names[index]}"

    def read(self, index: int) -> bytes:
        """The bytes of the member. Raises DataError if the archive cannot be read."""
        archive, offset, size = map(int, self._locations[index])
        path = self._archives[archive]
        content = read_bytes(path, offset, size)
        if len(content) < size:
            raise DataError(f"{path}: is shorter than when it was opened; restore it")
        return content

    def digests(self) -> dict[str, str]:
        """Names are those of the archives, without their folder, and of their members."""
        archives = Names([os.path.basename(path) for path in self._archives])  # noqa: PTH119
        parts = archives.digest().encode(), self._locations[:, 0], self.names.digest().encode()
        return {
            "names": digest(*parts),
            "labels": digest(self.labels),
            "sizes": digest(self._locations[:, 2]),
        }


def read_bytes(path: str, offset: int = 0, size: int = -1) -> bytes:
    """A file's bytes, or ``size`` of them from ``offset`` on. Raises DataError, one line.

    A file that cannot be read is a problem of the disk or its permissions, not a bad image: it
    stops the run even if bad images are skipped, so a lost mount is not mistaken for bad data.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123  a Path would add a tenth to each read
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise unreadable(path, error) from None
