"""Data by URI: ``digits``, ``folder:PATH``, ``cityscapes:PATH`` and the other `sources.SOURCES`;
and fingerprints, plain values that differ between data sets and after a change.

Number of classes, image size and normalisation come from the data; the network is built to fit.
torch is imported when data is opened.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convnext_study.data.sources import (
    SOURCES,
    OpenRequest,
    has_location,
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
        uri: a scheme of `SOURCES` and what it needs; docs/data.md lists them all.
        labels: that its images must have; None: any.
        download: fetch a CIFAR or torchvision data set if it is missing.
        corrupt_images: stop at an image that cannot be used (it, its mask or file is missing or
            cannot be decoded, a mask has another size, a label is out of range), or use the next
            image of the data set in its place and record its name in ``data.corrupt``.
        val_alone: ignore the training part of folders, archives and shards, which need not exist;
            ``data.train`` is then ``data.val``.
    """
    from convnext_study.data.dataset import CorruptImages, DataError

    parsed = split_uri(uri)
    scheme, path, options = parsed.scheme, parsed.path, parsed.option_values
    if labels is not None and (problem := wrong_labels(uri, labels)):
        raise DataError(problem)
    if scheme not in SOURCES:
        schemes = list(SOURCES if labels is None else usages(labels))
        raise DataError(f"data {uri!r}: unknown kind{did_you_mean(scheme, schemes)}")
    source = SOURCES[scheme]
    if source.needs_path and not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    if path and source.usage == scheme:
        raise DataError(f"data {uri!r}: takes no path; use {scheme}")
    for name in options:
        if name not in source.options:
            hint = did_you_mean(name, list(source.options))
            raise DataError(f"data {uri!r}: unknown option {name!r}{hint}")
    data = source.open(path, OpenRequest(options, download, corrupt_images, val_alone))
    notes = [note for part in (data.train, data.val) for note in getattr(part, "notes", ())]
    unique_notes = tuple(dict.fromkeys(notes))  # with ``val_alone`` both parts are the same
    return replace(data, uri=uri, notes=unique_notes, corrupt=CorruptImages(corrupt_images))


def fingerprint(data: DatasetPair) -> dict[str, Any]:
    """Number and names of the classes; number, names, labels and sizes of each part's images.

    Names are relative to the data's folder, so moved data is the same data. A file that keeps its
    name and size counts as unchanged, since no file is read.
    """
    return {
        "classes": len(data.classes),
        "class_names": digest_of_names(data.classes),
        "train": _part(data.train),
        "val": _part(data.val),
    }


def data_id(uri: str, identity: dict[str, Any]) -> str | None:
    """Data's identity, wherever it is stored: scheme, options and the digest of its fingerprint.

    None if the URI names no location and is the identity itself.
    """
    if not has_location(uri):
        return None
    parsed = split_uri(uri)
    options = SOURCES[parsed.scheme].identity(parsed.path, parsed.option_values)
    return f"{parsed.scheme}:{options}#{digest_of_data(identity)}"


def digest_of_names(classes: tuple[str, ...]) -> str:
    """A digest of the names of the classes, in order."""
    from convnext_study.data.dataset import digest

    return digest(json.dumps(classes).encode())


def check_same(recorded: dict[str, Any], current: dict[str, Any], where: str) -> None:
    """Compare two fingerprints. Raises DataError, one line with the first difference.

    Entries that only one of them has are not compared.
    """
    from convnext_study.data.dataset import DataError

    if change := difference(recorded, current):
        raise DataError(f"{where}: {change}; restore the data, or choose another --out")


def _part(images: ImageDataset) -> dict[str, Any]:
    return {"images": len(images), **images.digests()}
