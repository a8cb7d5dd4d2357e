"""Masks looked at once, before anything trains: what they hold, and what cannot be meant.

Every mask is decoded and every image's header read, by several threads. A network would learn
something of masks that are not saved as they are read, and its mIoU would look like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from convnext_study.data.dataset import (
    IGNORE,
    CorruptImage,
    DataError,
    DatasetPair,
    OnCorruptImage,
)
from convnext_study.data.image_mask_files import FilePairs, Labels

Bools = npt.NDArray[np.bool_]
SHOWN = 5  # labels in a line
PADDED_TO = 32  # sides of whole images


@dataclass(frozen=True)
class Survey:
    """What the masks of one part hold.

    Args:
        files: the pairs.
        holds: (masks, 256), whether a mask has a pixel of a label; a bad one has of none.
        bad: why a pair cannot be used, by its place.
    """

    files: FilePairs
    holds: Bools
    bad: Mapping[int, CorruptImage]

    @property
    def folder(self) -> str:
        """Of the masks."""
        return self.files.mask_folder

    @property
    def labels(self) -> list[int]:
        """Those that are there, without the ignored one."""
        return [int(one) for one in np.flatnonzero(self.holds[:, :IGNORE].any(0))]

    def within(self, known: int, on_corrupt: OnCorruptImage) -> Survey:
        """The same with masks as bad ones that hold other labels than 0 to ``known`` - 1 and 255.

        Raises CorruptImage at the first of them; where they are skipped, only if no mask is left,
        or several hold the label ``known``: that is another numbering and no bad pair.
        """
        holds, bad = self.holds.copy(), dict(self.bad)
        another = int(holds[:, known].sum()) > 1 if known < IGNORE else False
        for index in np.flatnonzero(holds[:, known:IGNORE].any(1)).tolist():
            label = known + int(holds[index, known:IGNORE].argmax())
            bad[index] = self.files.unknown_label(index, label, known)
            if on_corrupt == "stop" or len(bad) == len(holds) or (another and label == known):
                raise bad[index]
            holds[index] = False
        return replace(self, holds=holds, bad=bad)

    def of_classes(self, to_class: Labels) -> Survey:
        """The same with the classes of a table in place of labels."""
        holds = np.zeros_like(self.holds)
        for label, one in enumerate(to_class):
            holds[:, one] |= self.holds[:, label]
        return replace(self, holds=holds)


def survey(files: FilePairs, on_corrupt: OnCorruptImage) -> Survey:
    """Look at every pair, once in a process.

    Raises CorruptImage at the first that cannot be used; where they are skipped, if none can.
    """
    known = (files.mask_folder, on_corrupt, *files.digests().values())
    if known not in _surveys:
        _surveys[known] = _survey(files, on_corrupt)
    return Survey(files, *_surveys[known])


_surveys: dict[tuple[str, ...], tuple[Bools, dict[int, CorruptImage]]] = {}


def _survey(files: FilePairs, on_corrupt: OnCorruptImage) -> tuple[Bools, dict[int, CorruptImage]]:
    holds, bad = np.zeros((len(files), IGNORE + 1), dtype=bool), {}
    pool = ThreadPoolExecutor()
    try:
        for index, found in enumerate(pool.map(lambda one: _labels(files, one), range(len(files)))):
            if isinstance(found, CorruptImage):
                bad[index] = found
                if on_corrupt == "stop" or len(bad) == len(files):
                    raise bad[min(bad)]
            else:
                holds[index] = found
    finally:
        pool.shutdown(cancel_futures=True)
    return holds, bad


def data_of(
    train: Survey,
    val: Survey,
    classes: tuple[str, ...],
    known: int,
    to_class: Labels | None = None,
) -> DatasetPair:
    """Data of surveyed pairs, whose masks hold labels below ``known`` or 255: see `FilePairs`."""
    images, held_out = (one.files.holding(known, one.bad, to_class) for one in (train, val))
    shape = held_out.shape()
    side = -(-max(shape) // PADDED_TO) * PADDED_TO
    return DatasetPair(classes, side, images, held_out, shape=shape, one_size=False)


def check_parts(train: Survey, val: Survey, names: Sequence[str] = ()) -> None:
    """Raises DataError, one line, for a part without a class and for one that only ``val`` has."""
    for part, use in ((train, "learn from"), (val, "measure")):
        if not part.labels:
            raise DataError(
                f"{part.folder}: no pixel has a class, all are ignored, so there is nothing to "
                f"{use}; masks hold for each pixel the number of its class"
            )
    for label in sorted({*val.labels} - {*train.labels}):
        mask = val.files.mask_path(int(val.holds[:, label].argmax()))
        raise DataError(
            f"{mask}: holds class {_named(label, names)}, and no mask in {train.folder} does, so "
            f"it cannot be learned; train on images that show it, or mark its pixels as ignored "
            f"({IGNORE})"
        )


def check_numbers(train: Survey, val: Survey, names: Sequence[str]) -> None:
    """Raises DataError, one line, where the numbers in masks can be no classes from 0 on.

    Args:
        train: its masks show every class.
        val: its masks show more than the first one.
        names: of the classes; empty where the largest label says how many there are.
    """
    for part in (train, val):
        if part.labels == [0] and part.holds[:, IGNORE].any():
            raise DataError(
                f"{part.folder}: masks hold 0 and {IGNORE} alone, and {IGNORE} is ignored; write "
                f"1 in place of {IGNORE}"
            )
    labels = train.labels
    count = len(names) or max(labels, default=0) + 1
    missing = [label for label in range(max(count, 2)) if label not in labels]
    if missing and labels:
        raise DataError(
            f"{train.folder}: no pixel is of class {_several(missing, names)}, masks hold "
            f"{_several(labels)}; {_cure(labels, count, named=bool(names))}"
        )


def _labels(files: FilePairs, index: int) -> Bools | CorruptImage:
    try:
        return np.array(Image.fromarray(files.examine(index)).histogram()) > 0
    except CorruptImage as error:
        return error


def _cure(labels: list[int], count: int, *, named: bool) -> str:
    if labels[0] == 0 and len(labels) == 2 and count > 2 and not named:
        return f"write 1 in place of {labels[1]}"
    if labels[0] == 1:
        return f"count from 0: subtract 1 from every mask (0 becomes {IGNORE}, which is ignored)"
    if named:
        return "name in classes.txt those that training masks show, in the order of their numbers"
    return "number the classes from 0 on without gaps, two at least"


def _several(labels: Sequence[int], names: Sequence[str] = ()) -> str:
    listed = ", ".join(_named(label, names) for label in labels[:SHOWN])
    return listed + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")


def _named(label: int, names: Sequence[str]) -> str:
    return f"{label} ({names[label]})" if label < len(names) else str(label)
