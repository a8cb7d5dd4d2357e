"""Which data runs are trained on, wherever it lies, and how much: looked at once, before anything
is trained.

To list a large data set takes long, so that a command does it once (`look_at`), and what it found
goes with the runs to the processes that train them.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.data import open_data
from convnext_study.data.sources import (
    JOINTS,
    OF_IMAGES,
    OF_PIXELS,
    SOURCES,
    DatasetSize,
    check_labels,
    has_location,
    split_uri,
)
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from convnext_study.data.dataset import OnCorruptImage

# What the tasks of this package read; those of studies see to it themselves.
_LABELS = {"classification": OF_IMAGES, "segmentation": OF_PIXELS, "pose": JOINTS}


@dataclass(frozen=True)
class OpenedData:
    """What a command has to know of a data set: how large it is, its ``data_id`` as in
    `data.data_id`, and whether it can be had whole ``in_memory``."""

    size: DatasetSize
    data_id: str | None
    in_memory: bool


_opened: dict[str, OpenedData] = {}


def forget() -> None:
    """Look at all data anew: a command begins."""
    _opened.clear()


def look_at(
    uri: str, *, download: bool = False, corrupt_images: OnCorruptImage = "stop"
) -> OpenedData:
    """Open a data set, once in a command. Raises DataError; the options are as in `open_data`."""
    if uri not in _opened:
        _opened[uri] = _look_at(uri, download, corrupt_images)
    return _opened[uri]


def _look_at(uri: str, download: bool, corrupt_images: OnCorruptImage) -> OpenedData:
    from convnext_study.data import data_id, fingerprint
    from convnext_study.data.dataset import InMemoryDataset

    data = open_data(uri, download=download, corrupt_images=corrupt_images)
    return OpenedData(
        DatasetSize(len(data.train), len(data.val), len(data.classes), data.size, data.val_once),
        data_id(uri, fingerprint(data)) if has_location(uri) else None,
        isinstance(data.train, InMemoryDataset),
    )


def dataset_size(uri: str) -> DatasetSize:
    """A data set's size: known, or counted. Raises DataError where neither can be."""
    scheme, path, options = split_uri(uri)
    source = SOURCES.get(scheme)
    placed = source and (bool(path) == source.needs_path or source.default_path)
    if source and source.size and placed and not options:
        return source.size
    return look_at(uri).size


def size_if_missing(uri: str) -> tuple[DatasetSize, str] | None:
    """The sizes to count with for data that is not here, and a line that says so.

    None where the data is here, and where no size is known without it.
    """
    scheme, path, _ = split_uri(uri)
    source = SOURCES.get(scheme)
    if source is None or not (path := path or source.default_path):
        return None
    here = Path(path).expanduser()
    if source.files and not any(next(here.glob(one), None) for one in source.files):
        return dataset_size(uri), f"{path}: {scheme} is not there yet; counted with its known size"
    if source.assumed and not here.exists():
        return source.assumed, f"{path}: no such folder; counted as if ImageNet-1K were there"
    return None


def expected_size(uri: str) -> tuple[DatasetSize, str]:
    """The sizes to count with, and a line about data that is not here, empty where it is.

    Raises DataError for data that is not here and of which nothing is known.
    """
    return size_if_missing(uri) or (dataset_size(uri), "")


def has_maps(uri: str) -> bool:
    """Whether the images are labelled with maps or joints, and read one by one."""
    source = SOURCES.get(split_uri(uri).scheme)
    return source is not None and source.labels != OF_IMAGES


def identify(
    runs: Iterable[Run],
    recorded: Iterable[Run] = (),
    *,
    required: bool = False,
    **how: Any,
) -> list[Run]:
    """The runs with what their data is (`Run.data_id`), and the keys of their parents accordingly.

    Data that is not here is what runs ``recorded`` of the same place were trained on; if none
    were, DataError is raised where data is ``required``, and else its URI stands for it. ``how``
    it is opened is as in `look_at`.

    Raises UserError for data without the labels that a run's task needs.
    """
    given, known = list(runs), list(recorded)
    for run in given:
        if run.task.name in _LABELS:
            check_labels(run.data, _LABELS[run.task.name])
    ids: dict[str, str | None] = {}
    for uri in dict.fromkeys(run.data for run in given):
        if not has_location(uri):  # torch is not needed, and takes seconds to import
            ids[uri] = None
            continue
        from convnext_study.data.dataset import DataError

        try:
            ids[uri] = look_at(uri, **how).data_id
        except DataError:
            ids[uri] = _recorded_at(uri, known)
            if required and ids[uri] is None:
                raise
    return _renewed(given, ids)


def same_data(one: str, other: str) -> bool:
    """Whether two URIs name the same data: the same place, or the same files in two."""
    if _place(one) == _place(other):
        return True
    mine, its = (_id_of(uri) for uri in (one, other))
    return mine is not None and mine == its


def _id_of(uri: str) -> str | None:
    from convnext_study.data.dataset import DataError

    with contextlib.suppress(DataError):
        return look_at(uri).data_id if has_location(uri) else None
    return None


def _renewed(runs: list[Run], ids: Mapping[str, str | None]) -> list[Run]:
    """The runs with these identities of their data; a parent's new key for its old one."""
    by_key = {run.key: run for run in runs}

    @functools.cache
    def parent_of(key: str | None) -> str | None:
        return renewed(by_key[key]).key if key in by_key else key

    def renewed(run: Run) -> Run:
        about = {"data_id": ids[run.data], "init_from": parent_of(run.init_from)}
        return run.model_copy(update=about)

    return [renewed(run) for run in runs]


def _recorded_at(uri: str, recorded: Iterable[Run]) -> str | None:
    """What most of these runs found at a place."""
    place = _place(uri)
    found = Counter(run.data_id for run in recorded if run.data_id and _place(run.data) == place)
    return found.most_common(1)[0][0] if found else None


def _place(uri: str) -> tuple[str, str, str]:
    """The kind, the folder by whatever name it is reached, and options."""
    scheme, path, options = split_uri(uri)
    source = SOURCES.get(scheme)
    path = path or (source.default_path if source else "")
    return scheme, os.path.realpath(os.path.expanduser(path)), options  # noqa: PTH111
