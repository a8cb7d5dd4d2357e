"""People in images, each with its joints, and a data set of them.

Places are in pixels from the image's left upper corner: the middle of the first pixel is at 0.5.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from convnext_study.data.dataset import CorruptImage, OnCorruptImage, digest
from convnext_study.data.decode import decode_pixels
from convnext_study.data.encoded import Names, read_bytes

Floats = npt.NDArray[np.float32]
# The columns of a joint's row, and of the last row, which tells of the whole person.
JOINT_COLUMNS, PERSON_COLUMNS = ("x", "y", "labelled", "unused"), ("x", "y", "side", "head")


@dataclass(frozen=True)
class Person:
    """One person in an image.

    Args:
        image: the name of its file.
        joints: (joints, 3): place, and 1 where it is labelled, else 0.
        centre: of the square that is looked at.
        side: of that square.
        head: size of the head, by which errors are measured; NaN where it is not known.
    """

    image: str
    joints: Floats
    centre: tuple[float, float]
    side: float
    head: float = math.nan

    def rows(self) -> Floats:
        """(joints + 1, 4): each joint's place and whether it is labelled; last the square's centre
        and side and the head's size."""
        rows = np.zeros((len(self.joints) + 1, len(JOINT_COLUMNS)), dtype=np.float32)
        rows[:-1, :3] = self.joints
        rows[-1] = (*self.centre, self.side, self.head)
        return rows


class People:
    """People in images under ``folder``; ``sizes`` of the files in bytes, by their names."""

    def __init__(self, folder: str, people: Sequence[Person], sizes: Mapping[str, int]) -> None:
        self._folder = folder
        self._names = Names([person.image for person in people])
        self._sizes = np.array([sizes.get(one.image, -1) for one in people], dtype=np.int64)
        self._rows = np.stack([person.rows() for person in people])

    def __len__(self) -> int:
        return len(self._rows)

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole image, (3, H, W) uint8, and a person's rows, (joints + 1, 4) float32.

        Raises CorruptImage.
        """
        path = os.path.join(self._folder, self._names[index])  # noqa: PTH118
        if self._sizes[index] < 0:
            raise CorruptImage(
                f"{path}: is missing, and the annotation names it; restore it, or use "
                f"--corrupt-images skip",
                path,
            )
        image, rows = decode_pixels(read_bytes(path), path), self._rows[index].copy()
        (x, y), half = rows[-1, :2], rows[-1, 2] / 2
        height, width = image.shape[1:]
        if not (-half < x < width + half and -half < y < height + half):
            raise CorruptImage(
                f"{path}: has {width}x{height} pixels, and the annotation a person outside of "
                f"them, around {x:g}, {y:g}; correct it, or use --corrupt-images skip",
                path,
            )
        return image, torch.from_numpy(rows)

    def groups(self) -> torch.Tensor:
        """(N,) int64, a number for each person: those in one image share theirs."""
        names = [self._names[index] for index in range(len(self))]
        return torch.from_numpy(np.unique(names, return_inverse=True)[1])

    def digests(self) -> dict[str, str]:
        """SHA-256 of the images' names and sizes and of all annotations."""
        return {
            "names": self._names.digest(),
            "labels": digest(self._rows),
            "sizes": digest(self._sizes),
        }

    def check_images(self, on_corrupt: OnCorruptImage) -> None:
        """Raises CorruptImage at the first image that is missing, or where all are."""
        missing = np.flatnonzero(self._sizes < 0)
        if len(missing) and (on_corrupt == "stop" or len(missing) == len(self)):
            self.pixels(int(missing[0]))
