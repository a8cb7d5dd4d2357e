"""The identity and size of the data that runs are trained on, determined once before training.

Listing a large data set takes long, so a command does it once (`inspect_data`), and the outcome is
passed with the runs to the processes that train them.
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

# The labels that this package's tasks need; those of studies check theirs themselves.
_LABELS = {"classification": OF_IMAGES, "segmentation": OF_PIXELS, "pose": JOINTS}


@dataclass(frozen=True)
class OpenedData:
    """What a command needs of a data set: its size, its ``data_id`` as in `data.data_id`, and
    whether it is ``in_memory``."""

    size: DatasetSize
    data_id: str | None
    in_memory: bool


_opened: dict[str, OpenedData] = {}


def clear_cache() -> None:
    """Clear the cache at the beginning of a command."""
    _opened.clear()


def inspect_data(
    uri: str, *, download: bool = False, corrupt_images: OnCorruptImage = "stop"
) -> OpenedData:
    """Open a data set, once per command. Raises DataError; the options are as in `open_data`."""
    if uri not in _opened:
        _opened[uri] = _inspect_data(uri, download, corrupt_images)
    return _opened[uri]


def _inspect_data(uri: str, download: bool, corrupt_images: OnCorruptImage) -> OpenedData:
    from convnext_study.data import data_id, fingerprint
    from convnext_study.data.dataset import InMemoryDataset

    data = open_data(uri, download=download, corrupt_images=corrupt_images)
    return OpenedData(
        DatasetSize(len(data.train), len(data.val), len(data.classes), data.size, data.val_once),
        data_id(uri, fingerprint(data)) if has_location(uri) else None,
        isinstance(data.train, InMemoryDataset),
    )


def dataset_size(uri: str) -> DatasetSize:
    """A data set's size, known or counted. Raises DataError if neither is possible."""
    scheme, path, options = split_uri(uri)
    source = SOURCES.get(scheme)
    known_place = source and (bool(path) == source.needs_path or source.default_path)
    if source and source.size and known_place and not options:
        return source.size
    return inspect_data(uri).size


def size_if_missing(uri: str) -> tuple[DatasetSize, str] | None:
    """The assumed size of missing data, and a line that says so.

    None if the data is here, or if its size is not known without it.
    """
    scheme, path, _ = split_uri(uri)
    source = SOURCES.get(scheme)
    if source is None or not (path := path or source.default_path):
        return None
    folder = Path(path).expanduser()
    if source.files and not any(next(folder.glob(pattern), None) for pattern in source.files):
        return dataset_size(uri), f"{path}: {scheme} is not there yet; its known size is used"
    if source.assumed and not folder.exists():
        return source.assumed, f"{path}: no such folder; ImageNet-1K's size is used"
    return None


def expected_size(uri: str) -> tuple[DatasetSize, str]:
    """The size of data, and a line about it if it is missing, else an empty one.

    Raises DataError for missing data of unknown size.
    """
    return size_if_missing(uri) or (dataset_size(uri), "")


def has_maps(uri: str) -> bool:
    """Whether the labels are maps or joints, so that images are read one by one."""
    source = SOURCES.get(split_uri(uri).scheme)
    return source is not None and source.labels != OF_IMAGES


def identify(
    runs: Iterable[Run],
    recorded: Iterable[Run] = (),
    *,
    required: bool = False,
    **open_options: Any,
) -> list[Run]:
    """The runs with the identity of their data (`Run.data_id`) and their parents' new keys.

    Missing data is assumed to be what runs ``recorded`` with the same path were trained on; if
    there are none, DataError is raised if data is ``required``, and else its URI identifies it.
    ``open_options`` are those of `inspect_data`.

    Raises UserError for data without the labels that a run's task needs.
    """
    requested, previous = list(runs), list(recorded)
    for run in requested:
        if run.task.name in _LABELS:
            check_labels(run.data, _LABELS[run.task.name])
    ids: dict[str, str | None] = {}
    for uri in dict.fromkeys(run.data for run in requested):
        if not has_location(uri):  # without importing torch, which takes seconds
            ids[uri] = None
            continue
        from convnext_study.data.dataset import DataError

        try:
            ids[uri] = inspect_data(uri, **open_options).data_id
        except DataError:
            ids[uri] = _recorded_at(uri, previous)
            if required and ids[uri] is None:
                raise
    return _with_ids(requested, ids)


def same_data(first: str, second: str) -> bool:
    """Whether two URIs name the same data: the same path, or the same files in two."""
    if _canonical(first) == _canonical(second):
        return True
    first_id, second_id = (_id_of(uri) for uri in (first, second))
    return first_id is not None and first_id == second_id


def _id_of(uri: str) -> str | None:
    from convnext_study.data.dataset import DataError

    with contextlib.suppress(DataError):
        return inspect_data(uri).data_id if has_location(uri) else None
    return None


def _with_ids(runs: list[Run], ids: Mapping[str, str | None]) -> list[Run]:
    """The runs with these identities of their data, and the new keys of their parents."""
    by_key = {run.key: run for run in runs}

    @functools.cache
    def parent_of(key: str | None) -> str | None:
        return renewed(by_key[key]).key if key in by_key else key

    def renewed(run: Run) -> Run:
        update = {"data_id": ids[run.data], "init_from": parent_of(run.init_from)}
        return run.model_copy(update=update)

    return [renewed(run) for run in runs]


def _recorded_at(uri: str, recorded: Iterable[Run]) -> str | None:
    """The identity that most of these runs recorded for a path."""
    canonical = _canonical(uri)
    same = [run for run in recorded if run.data_id and _canonical(run.data) == canonical]
    counts = Counter(run.data_id for run in same)
    return counts.most_common(1)[0][0] if counts else None


def _canonical(uri: str) -> tuple[str, str, str]:
    """The scheme, the folder's real path, and options."""
    scheme, path, options = split_uri(uri)
    source = SOURCES.get(scheme)
    path = path or (source.default_path if source else "")
    return scheme, os.path.realpath(os.path.expanduser(path)), options  # noqa: PTH111
