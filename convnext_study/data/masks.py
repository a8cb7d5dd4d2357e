"""Images with a mask each, in files decoded on demand, and the validation of their labels.

Before training starts, every mask is decoded and every image's header read, in several threads. A
network learns something even from masks that were saved in another encoding, and its mIoU would
look plausible.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image

from convnext_study.data.dataset import (
    IGNORE,
    CorruptImage,
    DataError,
    DatasetPair,
    OnCorruptImage,
    digest,
    padded_side,
)
from convnext_study.data.decode import decode_pixels, decoding
from convnext_study.data.encoded import Ints, Names, read_bytes

Labels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SHOWN = 5  # labels named in a message
# Positions of header bytes in a PNG, and the colour type of grey.
BIT_DEPTH, COLOUR_TYPE, GREY = 24, 25, 0
TURNED = range(5, 9)  # EXIF orientations that swap height and width
_SKIP = "or use --corrupt-images skip"


class Pair(NamedTuple):
    """Paths of an image and its mask inside the data's folder, with their sizes in bytes.

    A missing mask has size -1.
    """

    image: str
    mask: str
    image_bytes: int
    mask_bytes: int


class MaskedImages:
    """Pairs under ``folder``, with their masks in its folder ``masks``; `survey` checks each once.

    Args:
        folder: of the data.
        masks: the folder of the masks in it.
        pairs: in order.
        notes: which files among the images are not read.
    """

    def __init__(
        self, folder: str, masks: str, pairs: Sequence[Pair], notes: tuple[str, ...] = ()
    ) -> None:
        self._folder, self.mask_folder, self.notes = folder, os.path.join(folder, masks), notes  # noqa: PTH118
        self._images = Names([pair.image for pair in pairs])
        self._masks = Names([pair.mask for pair in pairs])
        self._sizes: Ints = np.array([pair[2:] for pair in pairs], dtype=np.int64)
        self._to_class: Labels | None = None
        # (masks, 256), whether a mask has a pixel with a label; why a pair cannot be used.
        self.has_label: Bools = np.zeros((len(pairs), IGNORE + 1), dtype=bool)
        self.bad: dict[int, CorruptImage] = {}

    def __len__(self) -> int:
        return len(self._images)

    @property
    def labels(self) -> list[int]:
        """Labels that occur in masks, without the ignored one."""
        return [int(label) for label in np.flatnonzero(self.has_label[:, :IGNORE].any(0))]

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An image, (3, H, W) uint8, and its labels, (H, W) uint8.

        Raises CorruptImage if the two do not match, DataError for a problem of the disk.
        """
        if index in self.bad:
            raise self.bad[index]
        image, mask = self.image(index), self.mask(index)
        self._check_size(index, mask, *image.shape[1:])
        return image, torch.from_numpy(mask if self._to_class is None else self._to_class[mask])

    def image(self, index: int) -> torch.Tensor:
        """The image alone, (3, H, W) uint8. Raises CorruptImage."""
        path = self._path(self._images, index)
        return decode_pixels(read_bytes(path), path)

    def mask(self, index: int) -> Labels:
        """The mask alone, (H, W), with labels as stored. Raises CorruptImage."""
        if self._sizes[index, 1] < 0:
            raise self._unusable(
                index, f"is missing, but {self._images[index]} needs it as its mask"
            )
        path = self.mask_path(index)
        return decode_mask(read_bytes(path), path)

    def digests(self) -> dict[str, str]:
        """Names are relative to the folder, so that it may be moved."""
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
        """The path of a mask."""
        return self._path(self._masks, index)

    def survey(self, on_corrupt: OnCorruptImage) -> None:
        """Check every pair, once per process.

        Raises CorruptImage for the first that cannot be used; if those are skipped, if none can.
        """
        key = (self.mask_folder, on_corrupt, *self.digests().values())
        if key not in _surveys:
            with ThreadPoolExecutor() as pool:
                try:
                    for index, result in enumerate(pool.map(self._examined, range(len(self)))):
                        if isinstance(result, CorruptImage):
                            self.bad[index] = result
                            if on_corrupt == "stop" or len(self.bad) == len(self):
                                raise self.bad[min(self.bad)]
                        else:
                            self.has_label[index] = result
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            _surveys[key] = self.has_label, self.bad
        has_label, bad = _surveys[key]
        self.has_label, self.bad = has_label.copy(), dict(bad)

    def reject_labels_from(self, classes: int, on_corrupt: OnCorruptImage) -> None:
        """Mark pairs as bad whose masks contain other labels than 0 to ``classes`` - 1 and 255.

        Raises CorruptImage for the first of them; if those are skipped, only if no mask is left or
        several contain the label ``classes``, which means another numbering and not a bad pair.
        """
        has_label = self.has_label
        shifted = classes < IGNORE and int(has_label[:, classes].sum()) > 1
        for index in np.flatnonzero(has_label[:, classes:IGNORE].any(1)).tolist():
            label = classes + int(has_label[index, classes:IGNORE].argmax())
            reason = (
                f"has label {label}, but there are {classes} classes, numbered from 0 ({IGNORE} "
                "is ignored)"
            )
            path = self.mask_path(index)
            self.bad[index] = self._unusable(index, reason)
            if label == classes:
                self.bad[index] = CorruptImage(
                    f"{path}: {reason}; if masks count from 1, subtract 1 everywhere (0 becomes "
                    f"{IGNORE}); otherwise name that class too, or remove it from the mask",
                    path,
                )
            if on_corrupt == "stop" or len(self.bad) == len(self) or (shifted and label == classes):
                raise self.bad[index]
            has_label[index] = False

    def map_labels(self, to_class: Labels) -> None:
        """Map labels to classes from now on, by a table of 256 entries."""
        labels, self.has_label = self.has_label, np.zeros_like(self.has_label)
        self._to_class = to_class
        for label, number in enumerate(to_class):
            self.has_label[:, number] |= labels[:, label]

    def _examined(self, index: int) -> Bools | CorruptImage:
        """Which labels a mask contains, after checking it against its image's header.

        EXIF orientation is not applied. A mask was usually drawn over the image as viewers turn
        it; a turned image is accepted only if height and width show that its mask was not.
        """
        try:
            mask = self.mask(index)
            height, width, orientation = self._header(index)
            if orientation > 1 and (
                orientation not in TURNED or height == width or mask.shape == (width, height)
            ):
                path = self._path(self._images, index)
                raise CorruptImage(
                    f"{path}: has EXIF orientation {orientation}, which is not applied here, so "
                    "its mask may not match; rotate its pixels (PIL.ImageOps.exif_transpose), or "
                    f"remove the tag if the mask fits the stored pixels, {_SKIP}",
                    path,
                )
            self._check_size(index, mask, height, width)
        except CorruptImage as error:
            return error
        return np.array(Image.fromarray(mask).histogram()) > 0

    def _header(self, index: int) -> tuple[int, int, int]:
        """Height, width and EXIF orientation (1: upright) of an image that is not decoded."""
        try:
            with Image.open(self._path(self._images, index)) as image:
                # A PNG's own method would decode the pixels first.
                exif = Image.Image.getexif(image)
                return image.height, image.width, int(exif.get(ExifTags.Base.Orientation, 1))
        except Exception:  # the decoder reports what is wrong, if anything is
            _, height, width = self.image(index).shape
            return height, width, 1

    def _check_size(self, index: int, mask: Labels, height: int, width: int) -> None:
        if mask.shape != (height, width):
            size = f"{mask.shape[1]}x{mask.shape[0]}"
            raise self._unusable(index, f"is {size} pixels, but its image is {width}x{height}")

    def _path(self, names: Names, index: int) -> str:
        return os.path.join(self._folder, names[index])  # noqa: PTH118

    def _unusable(self, index: int, reason: str) -> CorruptImage:
        path = self.mask_path(index)
        return CorruptImage(f"{path}: {reason}; correct or remove the pair, {_SKIP}", path)


_surveys: dict[tuple[str, ...], tuple[Bools, dict[int, CorruptImage]]] = {}


def decode_mask(content: bytes, name: str) -> Labels:
    """A PNG mask's value at each pixel, (H, W): a palette index or a grey value.

    Raises CorruptImage, one line that names the file.
    """
    with decoding(name), Image.open(BytesIO(content)) as image:
        codec, mask = image.format, np.asarray(image)
    problem = ""
    if codec != "PNG":
        problem = (
            f"is a {codec} file, not PNG, so labels may have been altered; save masks as PNG from "
            "the original annotation"
        )
    elif mask.ndim != 2:
        channels_equal = (mask[..., :3] == mask[..., :1]).all() if mask.shape[2] > 2 else True
        problem = "has several channels, but a mask needs one class number per pixel; " + (
            "the channels are equal, so keep only the first (in Pillow getchannel(0))"
            if channels_equal
            else (
                "replace each colour with its class number, as a grey value or palette index from 0"
            )
        )
    elif mask.size and (mask.min() < 0 or mask.max() > IGNORE):
        problem = f"has label {mask.max()}; the largest is {IGNORE}, which is ignored"
    if problem:
        raise CorruptImage(f"{name}: {problem}; {_SKIP}", name)
    mask = mask.astype(np.uint8)
    if content[COLOUR_TYPE] == GREY and (depth := content[BIT_DEPTH]) in (2, 4):
        mask = mask // (255 // (2**depth - 1))  # Pillow scales them from black to white
    return mask


def masked_data(train: MaskedImages, val: MaskedImages, classes: tuple[str, ...]) -> DatasetPair:
    """Data from surveyed pairs. Raises DataError, one line, for a part without any class and for a
    class that only ``val`` contains."""
    for part, use in ((train, "learn from"), (val, "measure")):
        if not part.labels:
            raise DataError(
                f"{part.mask_folder}: all pixels are ignored, so there is nothing to {use}; masks "
                "need a class number for each pixel"
            )
    for label in sorted({*val.labels} - {*train.labels}):
        mask = val.mask_path(int(val.has_label[:, label].argmax()))
        raise DataError(
            f"{mask}: has class {_named([label], classes)}, but no mask in {train.mask_folder} "
            "does, so it cannot be learned; add training images that show it, or mark its pixels "
            f"as ignored ({IGNORE})"
        )
    shape = val.shape()
    return DatasetPair(classes, padded_side(max(shape)), train, val, shape=shape, one_size=False)


def check_numbers(train: MaskedImages, val: MaskedImages, names: Sequence[str]) -> None:
    """Raises DataError, one line, if the numbers in masks cannot be classes from 0 on.

    Args:
        train: its masks must contain every class.
        val: its masks must contain more than class 0.
        names: of the classes; empty if the largest label determines their number.
    """
    for part in (train, val):
        if part.labels == [0] and part.has_label[:, IGNORE].any():
            raise DataError(
                f"{part.mask_folder}: masks contain only 0 and {IGNORE}, and {IGNORE} is ignored; "
                f"replace {IGNORE} with 1"
            )
    labels = train.labels
    count = len(names) or max(labels, default=0) + 1
    missing = [label for label in range(max(count, 2)) if label not in labels]
    if not missing or not labels:
        return
    remedy = "number at least two classes from 0 without gaps"
    if labels[0] == 0 and len(labels) == 2 and count > 2 and not names:
        remedy = f"replace {labels[1]} with 1"
    elif labels[0] == 1:
        remedy = f"count from 0: subtract 1 from every mask (0 becomes {IGNORE}, which is ignored)"
    elif names:
        remedy = (
            "list in classes.txt the classes that occur in training masks, in the "
            "order of their numbers"
        )
    raise DataError(
        f"{train.mask_folder}: no pixel has class {_named(missing, names)}; masks contain "
        f"{_named(labels)}; {remedy}"
    )


def _named(labels: Sequence[int], names: Sequence[str] = ()) -> str:
    """Labels, with their names if they have any."""
    words = [f"{label} ({names[label]})" if label < len(names) else str(label) for label in labels]
    others = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + others
