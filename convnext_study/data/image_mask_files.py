"""Pairs of an image and a mask in files, decoded on demand, and what can be wrong with one."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image

from convnext_study.data.dataset import IGNORE, CorruptImage, DataError, digest
from convnext_study.data.decode import decode_pixels, decoding
from convnext_study.data.encoded import Ints, Names, read_bytes

Labels = npt.NDArray[np.uint8]

# Of a PNG, in its first bytes.
BIT_DEPTH, COLOUR_TYPE, GREY = 24, 25, 0
TURNED = range(5, 9)  # EXIF orientations that exchange height and width


class Pair(NamedTuple):
    """Paths of an image and its mask inside the data's folder, with their sizes in bytes.

    A mask that is not there has size -1.
    """

    image: str
    mask: str
    image_bytes: int
    mask_bytes: int


class FilePairs:
    """Pairs under ``folder``, with their masks in ``masks`` there; a mask holds classes, and 255.

    ``notes`` says what is among the images and not read.
    """

    def __init__(
        self, folder: str, masks: str, pairs: Sequence[Pair], notes: tuple[str, ...] = ()
    ) -> None:
        self._folder, self.mask_folder, self.notes = folder, os.path.join(folder, masks), notes  # noqa: PTH118
        self._images = Names([pair.image for pair in pairs])
        self._masks = Names([pair.mask for pair in pairs])
        self._sizes: Ints = np.array([pair[2:] for pair in pairs], dtype=np.int64)
        self._known, self._bad = IGNORE, dict[int, tuple[str, str]]()
        self._to_class: Labels | None = None

    def holding(
        self, known: int, bad: Mapping[int, CorruptImage], to_class: Labels | None = None
    ) -> FilePairs:
        """The same pairs, of whose masks more is known.

        Args:
            known: labels are below it, or 255.
            bad: pairs that are unusable, by their places.
            to_class: 256 entries from what a mask holds to a class, 255 where it is to be ignored.
        """
        pairs = copy.copy(self)
        pairs._known, pairs._to_class = known, to_class
        pairs._bad = {index: (str(error), error.name) for index, error in bad.items()}
        return pairs

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An image, (3, H, W) uint8, and its labels, (H, W) uint8.

        Raises CorruptImage where the two do not make a pair, DataError where the disk is in the
        way.
        """
        if index in self._bad:
            raise CorruptImage(*self._bad[index])
        image, held = self.image(index), self.held(index)
        self._check_size(index, held, *image.shape[1:])
        return image, torch.from_numpy(held if self._to_class is None else self._to_class[held])

    def image(self, index: int) -> torch.Tensor:
        """The image alone, (3, H, W) uint8. Raises CorruptImage."""
        path = self._path(self._images, index)
        return decode_pixels(read_bytes(path), path)

    def held(self, index: int) -> Labels:
        """What the mask alone holds, (H, W). Raises CorruptImage."""
        if self._sizes[index, 1] < 0:
            raise self._unusable(index, f"is missing, the mask of {self._images[index]}")
        path = self.mask_path(index)
        held = decode_mask(read_bytes(path), path)
        wrong = held[(held >= self._known) & (held != IGNORE)]
        if wrong.size:
            raise self.unknown_label(index, int(wrong.min()), self._known)
        return held

    def examine(self, index: int) -> Labels:
        """What the mask holds, once its image's header fits it. Raises CorruptImage.

        EXIF orientation is not applied. A mask was mostly drawn over the image as viewers turn it;
        only where height and width tell that it was not is the image taken.
        """
        held = self.held(index)
        height, width, orientation = self._header(index)
        if orientation > 1 and (
            orientation not in TURNED or height == width or held.shape == (width, height)
        ):
            path = self._path(self._images, index)
            raise CorruptImage(
                f"{path}: EXIF orientation {orientation} turns it for viewers and not here, so its "
                f"mask may lie otherwise; turn its pixels (PIL.ImageOps.exif_transpose), or remove "
                f"the tag where the mask fits them, or use --corrupt-images skip",
                path,
            )
        self._check_size(index, held, height, width)
        return held

    def digests(self) -> dict[str, str]:
        """Names are those inside the folder, so that it may lie elsewhere."""
        return {
            "names": digest(self._images.digest().encode(), self._masks.digest().encode()),
            "sizes": digest(self._sizes),
        }

    def shape(self) -> tuple[int, int]:
        """Height and width of the first image that can be read. Raises DataError if none can."""
        for index in range(len(self)):
            try:
                _, height, width = self.image(index).shape
            except CorruptImage:
                continue
            return height, width
        raise DataError(f"{self._folder}: none of its {len(self)} images can be read")

    def mask_path(self, index: int) -> str:
        """Where a mask is."""
        return self._path(self._masks, index)

    def unknown_label(self, index: int, label: int, known: int) -> CorruptImage:
        """The error for a mask that holds a label which is none of 0 to ``known`` - 1."""
        reason = f"holds label {label}; there are {known} classes, from 0, and {IGNORE} is ignored"
        if label > known:
            return self._unusable(index, reason)
        path = self.mask_path(index)
        return CorruptImage(
            f"{path}: {reason}; where masks count from 1, subtract 1 from every one (0 becomes "
            f"{IGNORE}), else name that class too, or take it out of the mask",
            path,
        )

    def _header(self, index: int) -> tuple[int, int, int]:
        """Height, width and EXIF orientation (1: upright) of an image that is not decoded."""
        try:
            with Image.open(self._path(self._images, index)) as image:
                # A PNG's own method would decode the pixels first.
                exif = Image.Image.getexif(image)
                return image.height, image.width, int(exif.get(ExifTags.Base.Orientation, 1))
        except Exception:  # what is wrong is said, if anything is, by the decoder
            _, height, width = self.image(index).shape
            return height, width, 1

    def _check_size(self, index: int, held: Labels, height: int, width: int) -> None:
        if held.shape != (height, width):
            mask = f"{held.shape[1]}x{held.shape[0]}"
            raise self._unusable(index, f"is {mask} pixels, and its image {width}x{height}")

    def _path(self, names: Names, index: int) -> str:
        return os.path.join(self._folder, names[index])  # noqa: PTH118

    def _unusable(self, index: int, reason: str) -> CorruptImage:
        path = self.mask_path(index)
        return CorruptImage(
            f"{path}: {reason}; correct or remove the pair, or use --corrupt-images skip", path
        )


def decode_mask(content: bytes, name: str) -> Labels:
    """What a PNG mask holds at each pixel, (H, W): a palette's index or a grey value.

    Raises CorruptImage, one line that names the file.
    """
    with decoding(name), Image.open(BytesIO(content)) as image:
        kind, held = image.format, np.asarray(image)
    trouble = ""
    if kind != "PNG":
        trouble = (
            f"holds {kind} and no PNG, so labels may have been changed; save masks as PNG files "
            f"from what they were drawn in"
        )
    elif held.ndim != 2:
        alike = (held[..., :3] == held[..., :1]).all() if held.shape[2] > 2 else True
        trouble = "a mask holds one number a pixel, and this one colours; " + (
            "its channels are equal: keep the first alone (in Pillow getchannel(0))"
            if alike
            else "give each colour its class's number, as a grey value or palette index from 0"
        )
    elif held.size and (held.min() < 0 or held.max() > IGNORE):
        trouble = f"holds label {held.max()}; the largest is {IGNORE}, which is ignored"
    if trouble:
        raise CorruptImage(f"{name}: {trouble}; or use --corrupt-images skip", name)
    held = held.astype(np.uint8)
    if content[COLOUR_TYPE] == GREY and (depth := content[BIT_DEPTH]) in (2, 4):
        held = held // (255 // (2**depth - 1))  # Pillow spreads them from black to white
    return held
