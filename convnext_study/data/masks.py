"""Images with a mask each, in files decoded on demand: what masks hold, and what cannot be meant.

Before anything trains every mask is decoded and every image's header read, by several threads. A
network would learn something of masks that are not saved as they are read, and its mIoU would look
like any other.
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

SHOWN = 5  # labels in a line
# Of a PNG, in its first bytes.
BIT_DEPTH, COLOUR_TYPE, GREY = 24, 25, 0
TURNED = range(5, 9)  # EXIF orientations that exchange height and width
_SKIP = "or use --corrupt-images skip"


class Pair(NamedTuple):
    """Paths of an image and its mask inside the data's folder, with their sizes in bytes.

    A mask that is not there has size -1.
    """

    image: str
    mask: str
    image_bytes: int
    mask_bytes: int


class MaskedImages:
    """Pairs under ``folder``, with their masks in ``masks`` there; `survey` looks at each once.

    Args:
        folder: of the data.
        masks: in it, the folder of the masks.
        pairs: in their order.
        notes: what is among the images and not read.
    """

    def __init__(
        self, folder: str, masks: str, pairs: Sequence[Pair], notes: tuple[str, ...] = ()
    ) -> None:
        self._folder, self.mask_folder, self.notes = folder, os.path.join(folder, masks), notes  # noqa: PTH118
        self._images = Names([pair.image for pair in pairs])
        self._masks = Names([pair.mask for pair in pairs])
        self._sizes: Ints = np.array([pair[2:] for pair in pairs], dtype=np.int64)
        self._to_class: Labels | None = None
        # (masks, 256), whether a mask has a pixel of a label; why a pair cannot be used.
        self.holds: Bools = np.zeros((len(pairs), IGNORE + 1), dtype=bool)
        self.bad: dict[int, CorruptImage] = {}

    def __len__(self) -> int:
        return len(self._images)

    @property
    def labels(self) -> list[int]:
        """Those that masks hold, without the ignored one."""
        return [int(one) for one in np.flatnonzero(self.holds[:, :IGNORE].any(0))]

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """An image, (3, H, W) uint8, and its labels, (H, W) uint8.

        Raises CorruptImage where the two do not make a pair, DataError where the disk is in the
        way.
        """
        if index in self.bad:
            raise self.bad[index]
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
        return decode_mask(read_bytes(path), path)

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

    def survey(self, on_corrupt: OnCorruptImage) -> None:
        """Look at every pair, once in a process.

        Raises CorruptImage at the first that cannot be used; where they are skipped, if none can.
        """
        known = (self.mask_folder, on_corrupt, *self.digests().values())
        if known not in _surveys:
            with ThreadPoolExecutor() as pool:
                try:
                    for index, found in enumerate(pool.map(self._examined, range(len(self)))):
                        if isinstance(found, CorruptImage):
                            self.bad[index] = found
                            if on_corrupt == "stop" or len(self.bad) == len(self):
                                raise self.bad[min(self.bad)]
                        else:
                            self.holds[index] = found
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            _surveys[known] = self.holds, self.bad
        holds, bad = _surveys[known]
        self.holds, self.bad = holds.copy(), dict(bad)

    def refuse_from(self, known: int, on_corrupt: OnCorruptImage) -> None:
        """Take pairs for bad ones whose masks hold other labels than 0 to ``known`` - 1 and 255.

        Raises CorruptImage at the first of them; where they are skipped, only if no mask is left,
        or several hold the label ``known``: that is another numbering and no bad pair.
        """
        holds = self.holds
        another = known < IGNORE and int(holds[:, known].sum()) > 1
        for index in np.flatnonzero(holds[:, known:IGNORE].any(1)).tolist():
            label = known + int(holds[index, known:IGNORE].argmax())
            reason = (
                f"holds label {label}; there are {known} classes, from 0, and {IGNORE} is ignored"
            )
            path = self.mask_path(index)
            self.bad[index] = self._unusable(index, reason)
            if label == known:
                self.bad[index] = CorruptImage(
                    f"{path}: {reason}; where masks count from 1, subtract 1 from every one (0 "
                    f"becomes {IGNORE}), else name that class too, or take it out of the mask",
                    path,
                )
            if on_corrupt == "stop" or len(self.bad) == len(self) or (another and label == known):
                raise self.bad[index]
            holds[index] = False

    def map_labels(self, to_class: Labels) -> None:
        """Read classes by a table of 256 entries in place of labels."""
        labels, self.holds = self.holds, np.zeros_like(self.holds)
        self._to_class = to_class
        for label, one in enumerate(to_class):
            self.holds[:, one] |= labels[:, label]

    def _examined(self, index: int) -> Bools | CorruptImage:
        """Which labels a mask holds, once its image's header fits it.

        EXIF orientation is not applied. A mask was mostly drawn over the image as viewers turn it;
        only where height and width tell that it was not is the image taken.
        """
        try:
            held = self.held(index)
            height, width, orientation = self._header(index)
            if orientation > 1 and (
                orientation not in TURNED or height == width or held.shape == (width, height)
            ):
                path = self._path(self._images, index)
                raise CorruptImage(
                    f"{path}: EXIF orientation {orientation} turns it for viewers and not here, so "
                    "its mask may lie otherwise; turn its pixels (PIL.ImageOps.exif_transpose), or "
                    f"remove the tag where the mask fits them, {_SKIP}",
                    path,
                )
            self._check_size(index, held, height, width)
        except CorruptImage as error:
            return error
        return np.array(Image.fromarray(held).histogram()) > 0

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
        return CorruptImage(f"{path}: {reason}; correct or remove the pair, {_SKIP}", path)


_surveys: dict[tuple[str, ...], tuple[Bools, dict[int, CorruptImage]]] = {}


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
        raise CorruptImage(f"{name}: {trouble}; {_SKIP}", name)
    held = held.astype(np.uint8)
    if content[COLOUR_TYPE] == GREY and (depth := content[BIT_DEPTH]) in (2, 4):
        held = held // (255 // (2**depth - 1))  # Pillow spreads them from black to white
    return held


def masked_data(train: MaskedImages, val: MaskedImages, classes: tuple[str, ...]) -> DatasetPair:
    """Data of surveyed pairs. Raises DataError, one line, for a part without a class and for one
    that only ``val`` has."""
    for part, use in ((train, "learn from"), (val, "measure")):
        if not part.labels:
            raise DataError(
                f"{part.mask_folder}: no pixel has a class, all are ignored, so there is nothing "
                f"to {use}; masks hold for each pixel the number of its class"
            )
    for label in sorted({*val.labels} - {*train.labels}):
        mask = val.mask_path(int(val.holds[:, label].argmax()))
        raise DataError(
            f"{mask}: holds class {_named([label], classes)}, and no mask in {train.mask_folder} "
            "does, so it cannot be learned; train on images that show it, or mark its pixels as "
            f"ignored ({IGNORE})"
        )
    shape = val.shape()
    return DatasetPair(classes, padded_side(max(shape)), train, val, shape=shape, one_size=False)


def check_numbers(train: MaskedImages, val: MaskedImages, names: Sequence[str]) -> None:
    """Raises DataError, one line, where the numbers in masks can be no classes from 0 on.

    Args:
        train: its masks show every class.
        val: its masks show more than the first one.
        names: of the classes; empty where the largest label says how many there are.
    """
    for part in (train, val):
        if part.labels == [0] and part.holds[:, IGNORE].any():
            raise DataError(
                f"{part.mask_folder}: masks hold 0 and {IGNORE} alone, and {IGNORE} is ignored; "
                f"write 1 in place of {IGNORE}"
            )
    labels = train.labels
    count = len(names) or max(labels, default=0) + 1
    missing = [label for label in range(max(count, 2)) if label not in labels]
    if not missing or not labels:
        return
    cure = "number the classes from 0 on without gaps, two at least"
    if labels[0] == 0 and len(labels) == 2 and count > 2 and not names:
        cure = f"write 1 in place of {labels[1]}"
    elif labels[0] == 1:
        cure = f"count from 0: subtract 1 from every mask (0 becomes {IGNORE}, which is ignored)"
    elif names:
        cure = "name in classes.txt those that training masks show, in the order of their numbers"
    raise DataError(
        f"{train.mask_folder}: no pixel is of class {_named(missing, names)}, masks hold "
        f"{_named(labels)}; {cure}"
    )


def _named(labels: Sequence[int], names: Sequence[str] = ()) -> str:
    """Labels, with their names where they have any."""
    words = [f"{label} ({names[label]})" if label < len(names) else str(label) for label in labels]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
