"""Pairs of an image and a mask in files, decoded on demand, and what can be wrong with one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from convnext_study.data.dataset import CorruptImage, DataError, OnCorruptImage, digest
from convnext_study.data.decode import corrupt_image, decode_pixels
from convnext_study.data.dense.dataset import IGNORE
from convnext_study.data.encoded import Names, read_bytes

Labels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Paths of an image and its mask inside the data's folder, with their sizes in bytes.

    A mask that is not there has size -1.
    """

    image: str
    mask: str
    image_bytes: int
    mask_bytes: int


class FilePairs:
    """Pairs under ``folder``; ``classes`` is how many labels there are, from 0.

    ``to_class`` is a table of 256 entries from what a mask holds to a class, 255 where it is to be
    ignored; without one masks hold classes.
    """

    def __init__(
        self,
        folder: str,
        pairs: Sequence[Pair],
        classes: int,
        to_class: Labels | None = None,
    ) -> None:
        self._folder, self._classes, self._to_class = folder, classes, to_class
        self._images = Names([pair.image for pair in pairs])
        self._masks = Names([pair.mask for pair in pairs])
        sizes = [(pair.image_bytes, pair.mask_bytes) for pair in pairs]
        self._sizes: Ints = np.array(sizes, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An image, (3, H, W) uint8, and its labels, (H, W) uint8.

        Raises CorruptImage where the two do not make a pair, DataError where the disk is in the
        way.
        """
        image = self.image(index)
        labels = self.labels(index)
        if image.shape[1:] != labels.shape:
            height, width = image.shape[1:]
            raise self._bad(
                index,
                f"is {labels.shape[1]}x{labels.shape[0]} pixels, and its image {width}x{height}",
            )
        return image, torch.from_numpy(labels)

    def image(self, index: int) -> torch.Tensor:
        """The image alone, (3, H, W) uint8. Raises CorruptImage."""
        path = self._path(self._images, index)
        return decode_pixels(read_bytes(path), path)

    def labels(self, index: int) -> Labels:
        """The labels alone, (H, W). Raises CorruptImage."""
        if self._sizes[index, 1] < 0:
            raise self._bad(index, f"is missing, the mask of {self._images[index]}")
        path = self._path(self._masks, index)
        held = decode_mask(read_bytes(path), path)
        labels = held if self._to_class is None else self._to_class[held]
        wrong = labels[(labels >= self._classes) & (labels != IGNORE)]
        if wrong.size:
            raise self._bad(
                index,
                f"holds label {wrong[0]}; there are {self._classes} classes, from 0, and {IGNORE} "
                f"is ignored",
            )
        return labels

    def digests(self) -> dict[str, str]:
        """Names are those inside the folder, so that it may lie elsewhere."""
        return {
            "names": digest(self._images.digest().encode(), self._masks.digest().encode()),
            "sizes": digest(self._sizes),
        }

    def size(self) -> tuple[int, int]:
        """Height and width of the first image that can be read. Raises DataError if none can."""
        for index in range(len(self)):
            try:
                _, height, width = self.image(index).shape
            except CorruptImage:
                continue
            return height, width
        raise DataError(f"{self._folder}: none of its {len(self)} images can be read")

    def check_masks(self, on_corrupt: OnCorruptImage) -> None:
        """Raises DataError at the first mask that is missing, or where all are."""
        missing = np.flatnonzero(self._sizes[:, 1] < 0)
        if len(missing) and (on_corrupt == "stop" or len(missing) == len(self)):
            self.labels(int(missing[0]))

    def _path(self, names: Names, index: int) -> str:
        return os.path.join(self._folder, names[index])  # noqa: PTH118

    def _bad(self, index: int, reason: str) -> CorruptImage:
        path = self._path(self._masks, index)
        return CorruptImage(
            f"{path}: {reason}; correct or remove the pair, or use --corrupt-images skip", path
        )


def decode_mask(content: bytes, name: str) -> Labels:
    """What a mask holds at each pixel, (H, W): a palette's index or a grey value.

    Raises CorruptImage, one line that names the file.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            held = np.asarray(image)
    except Exception as error:  # decoders meet broken files with any exception there is
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise corrupt_image(name, reason) from error
    if held.ndim != 2:
        raise CorruptImage(
            f"{name}: a mask holds one number a pixel, and this one colours; use grey values or "
            f"palette indices from 0, or --corrupt-images skip",
            name,
        )
    if held.size and (held.min() < 0 or held.max() > IGNORE):
        raise CorruptImage(f"{name}: holds label {held.max()}; the largest is {IGNORE}", name)
    return held.astype(np.uint8)
