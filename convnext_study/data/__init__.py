"""Data by URI: ``digits``, ``folder:PATH``, ``cityscapes:PATH`` and the other `sources.SOURCES`;
and what tells a data set from another one, or from itself after a change, in plain values.

Number of classes, image size and normalisation come from the data; the network is built to fit.
torch is imported when data is opened.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convnext_study.data.sources import (
    SOURCES,
    Opening,
    has_place,
    split_uri,
    usages,
    wrong_labels,
)
from convnext_study.errors import did_you_mean
from convnext_study.runs.fingerprints import difference, digest_of_data

if TYPE_CHECKING:
    from convnext_study.data.dataset import DatasetPair, ImageDataset, OnCorruptImage

__all__ = ["check_same", "data_id", "digest_of_names", "fingerprint", "open_data"]


def open_data(
    uri: str,
    labels: str | None = None,
    *,
    download: bool = False,
    corrupt_images: OnCorruptImage = "stop",
    val_alone: bool = False,
) -> DatasetPair:
    """Open a data set. Raises DataError, one line that names the path and what to do.

    Args:
        uri: a scheme of `SOURCES` and what it needs; docs/data.md has them all.
        labels: that its images have to have; None: whatever they have.
        download: fetch a CIFAR or torchvision data set that is not there.
        corrupt_images: stop at an image that cannot be used (it, its mask or file is missing or
            cannot be decoded, a mask is of another size, a label out of range), or take the next
            one of the data set in its place and record its name in ``data.corrupt``.
        val_alone: leave a training part of folders, archives and shards alone, which need not be
            there; ``data.train`` is then ``data.val``.
    """
    from convnext_study.data.dataset import CorruptImages, DataError

    given = split_uri(uri)
    scheme, path, options = given.scheme, given.path, given.option_values
    if labels is not None and (said := wrong_labels(uri, labels)):
        raise DataError(said)
    if scheme not in SOURCES:
        known = list(SOURCES if labels is None else usages(labels))
        raise DataError(f"data {uri!r}: unknown kind{did_you_mean(scheme, known)}")
    source = SOURCES[scheme]
    if source.needs_path and not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    if path and source.usage == scheme:
        raise DataError(f"data {uri!r}: there is one such data set; use {scheme}")
    for name in options:
        if name not in source.options:
            hint = did_you_mean(name, list(source.options))
            raise DataError(f"data {uri!r}: unknown option {name!r}{hint}")
    data = source.open(path, Opening(options, download, corrupt_images, val_alone))
    notes = [note for part in (data.train, data.val) for note in getattr(part, "notes", ())]
    once = tuple(dict.fromkeys(notes))  # the validation part alone is both
    return replace(data, uri=uri, notes=once, corrupt=CorruptImages(corrupt_images))


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
    from convnext_study.data.dataset import digest

    return digest(json.dumps(classes).encode())


def check_same(recorded: dict[str, Any], current: dict[str, Any], where: str) -> None:
    """Compare two fingerprints. Raises DataError, one line that says what differs first.

    What only one of them has is not compared.
    """
    from convnext_study.data.dataset import DataError

    if differs := difference(recorded, current):
        raise DataError(f"{where}: {differs}; restore the data, or choose another --out")


def _part(images: ImageDataset) -> dict[str, Any]:
    return {"images": len(images), **images.digests()}
