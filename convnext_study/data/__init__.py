"""Data by URI: ``digits``, ``folder:PATH``, ``timm:NAME`` and the other `sources.SOURCES`.

Number of classes, image size and normalisation come from the data; the network is built to fit.
torch is imported when data is opened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from convnext_study.data.labels import OF_IMAGES, wrong_labels
from convnext_study.data.sources import SOURCES, split_uri
from convnext_study.errors import did_you_mean

if TYPE_CHECKING:
    from convnext_study.data.dataset import DatasetPair, OnCorruptImage

__all__ = ["open_data"]


def open_data(
    uri: str,
    *,
    download: bool = False,
    corrupt_images: OnCorruptImage = "stop",
    val_alone: bool = False,
) -> DatasetPair:
    """Open a data set. Raises DataError, one line that names the path and what to do.

    Args:
        uri: a scheme of `SOURCES` and what it needs; docs/data.md has them all.
        download: fetch a CIFAR or torchvision data set that is not there.
        corrupt_images: stop at an image that cannot be decoded, or take the next one of the data
            set in its place and record its name in ``data.corrupt``.
        val_alone: leave a training part of folders, archives and shards alone, which need not be
            there; ``data.train`` is then ``data.val``.
    """
    from convnext_study.data.dataset import CorruptImages, DataError

    scheme, path = split_uri(uri).scheme, split_uri(uri).rest
    source = SOURCES.get(scheme)
    if said := wrong_labels(uri, OF_IMAGES):
        raise DataError(said)
    if source is None:
        raise DataError(f"data {uri!r}: unknown kind{did_you_mean(scheme, list(SOURCES))}")
    if source.needs_path and not path:
        raise DataError(f"data {uri!r}: needs a path, as in {scheme}:PATH")
    if path and source.usage == scheme:
        raise DataError(f"data {uri!r}: there is one such data set; use {scheme}")
    data = source.open(path, download=download, val_alone=val_alone)
    notes = [note for part in (data.train, data.val) for note in getattr(part, "notes", ())]
    once = tuple(dict.fromkeys(notes))  # the validation part alone is both
    return replace(data, uri=uri, notes=once, corrupt=CorruptImages(corrupt_images))
