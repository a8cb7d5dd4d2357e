"""``cityscapes:PATH``: the folders of Cityscapes as its authors pack them (Cordts et al., 2016).

``leftImg8bit`` and ``gtFine`` contain ``train`` and ``val``, with a folder per city. torchvision's
table maps the 34 label ids of the ``_labelIds.png`` to the 19 classes that are trained and
evaluated; all others are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from convnext_study.data.dataset import IGNORE, DataError, DatasetPair
from convnext_study.data.masks import Bools, Labels, MaskedImages, masked_data
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.listing import is_folder
from convnext_study.data.sources.pairs import paired

IMAGES, MASKS = "leftImg8bit", "gtFine"
IMAGE_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
TRAIN_END = "_gtFine_labelTrainIds.png"
LABEL_IDS, TRAINED = 34, 19  # their numbers; label ids from 19 on are not train ids
RARE = [5, 6, 9, 10, 14, 15, 16, 18]  # rare label ids that are not trained


def open_cityscapes(path: str, request: OpenRequest) -> DatasetPair:
    """2,975 training and 500 validation images, or those that are present.

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
    train, val = (_part(root, part, request) for part in ("train", "val"))
    for pairs in (train, val):
        pairs.map_labels(to_class)
    return masked_data(train, val, names)


def _part(root: Path, part: str, request: OpenRequest) -> MaskedImages:
    """A part's pairs, whose masks contain label ids."""
    pairs = paired(root, f"{IMAGES}/{part}", f"{MASKS}/{part}", _mask_of, {".png"})
    for train_id_mask in sorted((root / MASKS / part).rglob(f"*{TRAIN_END}")):
        mask = train_id_mask.with_name(train_id_mask.name.removesuffix(TRAIN_END) + MASK_END)
        if not mask.exists():
            raise DataError(
                f"{mask}: is missing, and {train_id_mask.name} is not used; unpack "
                "gtFine_trainvaltest.zip of Cityscapes again, or pass these masks as pairs:PATH"
            )
    pairs.survey(request.corrupt_images)
    _check_ids(pairs)
    pairs.reject_labels_from(LABEL_IDS, request.corrupt_images)
    return pairs


def train_classes() -> tuple[tuple[str, ...], Labels]:
    """Names of the 19 classes, and the table of 256 entries from label ids to them."""
    from torchvision.datasets import Cityscapes

    kinds: list[Any] = [kind for kind in Cityscapes.classes if 0 <= kind.train_id < IGNORE]
    to_class = np.full(256, IGNORE, dtype=np.uint8)
    for kind in kinds:
        to_class[kind.id] = kind.train_id
    return tuple(kind.name for kind in sorted(kinds, key=lambda kind: kind.train_id)), to_class


def _mask_of(image: str) -> str | None:
    """The name of an image's mask; None if it is not an image of the data set."""
    return image.removesuffix(IMAGE_END) + MASK_END if image.endswith(IMAGE_END) else None


def _check_ids(pairs: MaskedImages) -> None:
    """Raises DataError for masks that can only contain train ids.

    Every street shows something with a label id from 19 on (signs, plants, sky, people, cars). If
    none occurs, the values are train ids when there are also pixels without a class (255) or with
    ids of rare things (a tunnel, a bridge).
    """
    below_19: Bools = np.asarray(
        pairs.has_label[:, : TRAINED + 1].any(1) & ~pairs.has_label[:, TRAINED:IGNORE].any(1)
    )
    suspect = below_19 & pairs.has_label[:, IGNORE]
    if below_19.all() and pairs.has_label[:, RARE].any():
        suspect = below_19
    if suspect.any():
        raise DataError(
            f"{pairs.mask_path(int(suspect.argmax()))}: contains train ids (0 to 18 and {IGNORE}) "
            "instead of label ids (0 to 33); unpack gtFine_trainvaltest.zip of Cityscapes again, "
            "or pass these masks as pairs:PATH"
        )
