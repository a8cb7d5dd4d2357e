"""What tells a data set from another one, or from itself after a change, in plain values."""

from __future__ import annotations

import json
from typing import Any

from convnext_study.data.dataset import DataError, DatasetPair, ImageDataset, digest
from convnext_study.data.sources import SOURCES, has_place, split_uri
from convnext_study.runs.fingerprints import difference, digest_of_data


def fingerprint(data: DatasetPair) -> dict[str, Any]:
    """Number and names of the classes; number, names, labels and sizes of each part's images.

    Names are those inside the data's folder: the same data in another place is the same data. A
    file that keeps its name and size counts as unchanged, since no file is read.
    """
    return {
        "classes": len(data.classes),
        "class_names": digest_of_names(data.classes),
        "train": _part(data.train),
        "val": _part(data.val),
    }


def data_id(uri: str, found: dict[str, Any]) -> str | None:
    """What data is, wherever it lies: its kind, its options and the digest of its fingerprint.

    None where the URI names no place and says all by itself.
    """
    if not has_place(uri):
        return None
    given = split_uri(uri)
    said = SOURCES[given.scheme].besides_place(given.path, given.option_values)
    return f"{given.scheme}:{said}#{digest_of_data(found)}"


def digest_of_names(classes: tuple[str, ...]) -> str:
    """What tells the names of classes, in their order, from others."""
    return digest(json.dumps(classes).encode())


def check_same(recorded: dict[str, Any], current: dict[str, Any], where: str) -> None:
    """Compare two fingerprints. Raises DataError, one line that says what differs first.

    What only one of them has is not compared.
    """
    if differs := difference(recorded, current):
        raise DataError(f"{where}: {differs}; restore the data, or choose another --out")


def _part(images: ImageDataset) -> dict[str, Any]:
    return {"images": len(images), **images.digests()}
