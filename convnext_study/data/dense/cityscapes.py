"""``cityscapes:PATH``: the folders of Cityscapes as its authors pack them (Cordts et al., 2016).

``leftImg8bit`` and ``gtFine`` hold ``train`` and ``val``, with a folder for each city. The 34 kinds
of labels of the ``_labelIds.png`` become the 19 classes that are trained and evaluated, all else is
ignored; torchvision has the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convnext_study.data.dataset import DataError, OnCorruptImage
from convnext_study.data.dense.dataset import IGNORE, DenseData
from convnext_study.data.dense.files import FilePairs, Labels
from convnext_study.data.dense.folders import of_files, paired
from convnext_study.data.sources.listing import is_folder

IMAGES, MASKS = "leftImg8bit", "gtFine"
IMAGE_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


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
    parts = {}
    for part in ("train", "val"):
        pairs = paired(root, f"{IMAGES}/{part}", f"{MASKS}/{part}", _mask_of, {".png"})
        parts[part] = FilePairs(str(root), pairs, len(names), to_class)
    return of_files(f"cityscapes:{path}", names, parts, corrupt_images)


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
