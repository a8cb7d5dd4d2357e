"""``cityscapes:PATH``: the folders of Cityscapes as its authors pack them (Cordts et al., 2016).

``leftImg8bit`` and ``gtFine`` hold ``train`` and ``val``, with a folder for each city. The 34 kinds
of labels of the ``_labelIds.png`` become the 19 classes that are trained and evaluated, all else is
ignored; torchvision has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnext_study.data.dataset import DataError, OnCorruptImage
from convnext_study.data.dense.check import Bools, Survey, check_parts
from convnext_study.data.dense.dataset import IGNORE, DenseData
from convnext_study.data.dense.files import FilePairs, Labels, Pair
from convnext_study.data.dense.folders import look_at, of_files, paired
from convnext_study.data.sources.listing import is_folder

IMAGES, MASKS = "leftImg8bit", "gtFine"
IMAGE_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
LABEL_IDS, TRAINED = 34, 19  # how many there are; label ids from 19 on are no train ids
SELDOM = [5, 6, 9, 10, 14, 15, 16, 18]  # label ids that are not trained, and rare


def open_cityscapes(path: str, corrupt_images: OnCorruptImage = "stop") -> DenseData:
    """2,975 training and 500 validation images, with whatever of them is there.

    Raises DataError naming the folder or the file at fault.
    """
    root = Path(path).expanduser()
    for folder in (root / kind / part for kind in (IMAGES, MASKS) for part in ("train", "val")):
        if not is_folder(folder):
            raise DataError(
                f"{folder}: no such folder; cityscapes:PATH needs {IMAGES} and {MASKS} in PATH, "
                f"each with train and val"
            )
    names, to_class = train_classes()
    pairs = {
        part: paired(root, f"{IMAGES}/{part}", f"{MASKS}/{part}", _mask_of, {".png"})
        for part in ("train", "val")
    }
    found = {}
    for part in pairs:
        _check_names(root, pairs[part])
        labels = look_at(root, f"{MASKS}/{part}", pairs[part], corrupt_images)
        _check_ids(labels)
        found[part] = labels.within(LABEL_IDS, corrupt_images).of_classes(to_class)
    check_parts(found["train"], found["val"], names)
    parts = {
        part: FilePairs(str(root), pairs[part], LABEL_IDS, to_class, one.bad)
        for part, one in found.items()
    }
    return of_files(f"cityscapes:{path}", names, parts)


def train_classes() -> tuple[tuple[str, ...], Labels]:
    """Names of the 19 classes, and the table of 256 entries from label ids to them."""
    from torchvision.datasets import Cityscapes

    kinds: list[Any] = [kind for kind in Cityscapes.classes if 0 <= kind.train_id < IGNORE]
    to_class = np.full(256, IGNORE, dtype=np.uint8)
    for kind in kinds:
        to_class[kind.id] = kind.train_id
    return tuple(kind.name for kind in sorted(kinds, key=lambda kind: kind.train_id)), to_class


def _mask_of(image: str) -> str | None:
    """The mask's name of an image's; None of what is no image of the set."""
    return image.removesuffix(IMAGE_END) + MASK_END if image.endswith(IMAGE_END) else None


def _check_names(root: Path, pairs: Sequence[Pair]) -> None:
    """Raises DataError where masks with the ids of the 19 classes stand in for those with all."""
    for pair in pairs:
        other = root / pair.mask.replace("_labelIds", "_labelTrainIds")
        if pair.mask_bytes < 0 and other.exists():
            raise DataError(
                f"{root / pair.mask}: is missing, and {other.name} is not read; unpack "
                f"gtFine_trainvaltest.zip of Cityscapes again, or give these masks as pairs:PATH"
            )


def _check_ids(found: Survey) -> None:
    """Raises DataError for masks that can only hold the ids of the 19 classes.

    No street is without what has label ids from 19 on (signs, plants, the sky, people, cars).
    Without them, pixels without a class (255), or of what is seldom there (a tunnel, a bridge),
    are train ids.
    """
    low: Bools = np.asarray(
        found.holds[:, : TRAINED + 1].any(1) & ~found.holds[:, TRAINED:IGNORE].any(1)
    )
    ids = low & found.holds[:, IGNORE]
    if low.all() and found.holds[:, SELDOM].any():
        ids = low
    if ids.any():
        raise DataError(
            f"{found.files.mask_path(int(ids.argmax()))}: holds train ids (0 to 18 and {IGNORE}) "
            f"where label ids (0 to 33) are read; unpack gtFine_trainvaltest.zip of Cityscapes "
            f"again, or give these masks as pairs:PATH"
        )
