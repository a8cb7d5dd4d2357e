"""What tells a data set from another one, or from itself after a change, in plain values."""

from __future__ import annotations

import json
from typing import Any

from convnext_study.data.dataset import DataError, DataParts, ImageDataset, PixelDataset, digest

# Kinds of digests, the most telling first, and what it means that one is another.
_KINDS = {
    "names": "under other names",
    "labels": "with other labels",
    "sizes": "of other sizes in bytes: files were replaced or cut",
    "content": "with other pixels",
}


def fingerprint(data: DataParts) -> dict[str, Any]:
    """Number and names of the classes; number, names, labels and sizes of each part's images.

    Names are those inside the data's folder: the same data in another place is the same data. A
    file that keeps its name and size counts as unchanged, since no file is read.
    """
    return {
        "classes": len(data.classes),
        "class_names": digest(json.dumps(data.classes).encode()),
        "train": _part(data.train),
        "val": _part(data.val),
    }


def check_same(recorded: dict[str, Any], current: dict[str, Any], where: str) -> None:
    """Compare two fingerprints. Raises DataError, one line that says what differs first.

    What only one of them has is not compared.
    """
    difference = _difference(recorded, current)
    if difference:
        raise DataError(f"{where}: {difference}; restore the data, or choose another --out")


def _part(images: ImageDataset | PixelDataset) -> dict[str, Any]:
    return {"images": len(images), **images.digests()}


def _difference(recorded: dict[str, Any], current: dict[str, Any]) -> str:
    parts = [(name, recorded.get(name, {}), current.get(name, {})) for name in ("train", "val")]
    for name, before, now in parts:
        if _differ(before, now, "images"):
            return f"{name} holds {now['images']:,} images, {before['images']:,} were recorded"
    if _differ(recorded, current, "classes"):
        return f"the data has {current['classes']} classes, {recorded['classes']} were recorded"
    if _differ(recorded, current, "class_names"):
        return "the classes have other names than recorded"
    for kind, words in _KINDS.items():
        for name, before, now in parts:
            if _differ(before, now, kind):
                return f"{name} holds {now['images']:,} images as recorded, but {words}"
    return ""


def _differ(recorded: dict[str, Any], current: dict[str, Any], kind: str) -> bool:
    return kind in recorded and kind in current and recorded[kind] != current[kind]
