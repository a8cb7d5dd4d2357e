"""Index the images in tar archives once, to read them by position and in any order.

Archives laid out for timm's tar reader take their classes from the names of folders or of the
archives; WebDataset shards contain ``KEY.jpg`` beside ``KEY.cls`` (or ``KEY.json`` with a label).
timm streams the latter in its own order; read by position they can be sampled exactly.
"""

from __future__ import annotations

import json
import math
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from convnext_study.data.dataset import DataError
from convnext_study.data.encoded import Archives, Member, read_bytes
from convnext_study.data.sources.folder import Listing
from convnext_study.data.sources.listing import is_data, numbered_classes

IMAGE = frozenset({"jpg", "jpeg", "png", "webp"})
BRACES = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
MOST_SHARDS = 100_000
LABEL_BYTES = 2**20  # read of a .cls or .json


def open_timm_tars(root: str) -> Listing:
    """A tar, or a folder of tars, as timm's tar reader lists and labels it; and its classes.

    Raises DataError if it is not an archive or contains no images.
    """
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar
    from timm.utils.misc import natural_key

    try:
        reader = ReaderImageInTar(root, cache_tarinfo=False)
    except (tarfile.TarError, AssertionError, OSError, ValueError) as error:
        raise DataError(f"{root}: not a tar archive with images ({error})") from error
    folder = os.path.dirname(root) if reader.root_is_tar else root  # noqa: PTH120
    name_of = {label: name for name, label in reader.class_name_to_idx.items()}
    listed = []
    for (info, parent, child), label in zip(reader.samples, reader.targets, strict=True):
        path = os.path.join(folder, parent) if parent else root  # noqa: PTH118
        inside = f"{child.name}:" if child is not None else ""
        if info.issparse():
            raise DataError(f"{path}:{info.name}: is a sparse file; store it as a regular file")
        if is_data(info.name) and is_data(inside):
            # A tar inside a tar: its offsets are relative to where its bytes begin.
            offset = info.offset_data + (child.offset_data if child is not None else 0)
            listed.append((path, inside + info.name, offset, info.size, name_of[int(label)]))
    # timm numbers classes that differ only in case differently in each process.
    classes = sorted({name for *_, name in listed}, key=lambda name: (natural_key(name), name))
    label_of = {name: label for label, name in enumerate(classes)}
    samples = [(*place, label_of[name]) for *place, name in listed]
    samples.sort()  # timm leaves members of the same name in the order of the file system
    paths = sorted({path for path, *_ in samples})
    for path in paths:
        check_end(path)
    numbers = {path: number for number, path in enumerate(paths)}
    members = [Member(numbers[path], *place) for path, *place in samples]
    return Archives(paths, members), tuple(classes)


def open_wds_shards(root: str, pattern: str, label: str) -> Listing:
    """WebDataset shards under ``root``, and their classes, named by number.

    Args:
        pattern: file names with ``*`` and ``{000..127}``; anything after a ``|`` is ignored.
        label: the field of ``KEY.json`` to use if there is no ``KEY.cls``.

    Raises DataError if shards are missing or damaged, or a sample has no label.
    """
    shards: list[Path] = []
    for name in expand(pattern):
        matches = sorted(path for path in Path(root).glob(name) if is_data(path.name))
        if not matches:
            raise DataError(f"{root}: no shards named {name}")
        shards += matches
    members: list[Member] = []
    for number, shard in enumerate(shards):
        check_end(str(shard))
        try:
            with tarfile.open(shard, "r:") as archive:
                members += _samples(archive, number, label)
        except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{shard}: not a shard of labelled images ({error})") from error
    if not members:
        raise DataError(f"{root}: no images ({', '.join(sorted(IMAGE))}) in {pattern}")
    classes = numbered_classes(root, [member.label for member in members])
    return Archives(list(map(str, shards)), members), classes


def check_end(path: str) -> None:
    """Raises DataError if a tar is truncated, which tarfile takes for its end.

    A tar ends in blocks of zeros. Without this check a half-copied archive is a smaller data set.
    """
    size = os.path.getsize(path)  # noqa: PTH202
    if any(read_bytes(path, max(size - tarfile.BLOCKSIZE, 0), tarfile.BLOCKSIZE)):
        raise DataError(f"{path}: has no end mark, so the copy is incomplete; copy it again")


def expand(pattern: str) -> list[str]:
    """Expand ``a-{08..10}.tar`` to its three names; numbers keep their leading zeros.

    Raises DataError if there are too many.
    """
    pattern = pattern.partition("|")[0]
    spans = [(int(first), int(last)) for first, last in BRACES.findall(pattern)]
    if math.prod(max(last - first + 1, 0) for first, last in spans) > MOST_SHARDS:
        raise DataError(f"{pattern}: expands to more than {MOST_SHARDS:,} shards")
    return _expanded(pattern)


def _expanded(pattern: str) -> list[str]:
    braces = BRACES.search(pattern)
    if braces is None:
        return [pattern]
    first, last = braces.groups()
    names = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [expansion for name in names for expansion in _expanded(f"{head}{name}{tail}")]


def _samples(archive: tarfile.TarFile, number: int, field: str) -> Iterator[Member]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    for info in (member for member in archive if is_data(member.name)):
        folder, _, file = info.name.rpartition("/")
        key, _, kind = file.partition(".")
        key, kind = f"{folder}/{key}", kind.lower()
        if kind in (*IMAGE, "cls", "json") and (info.issparse() or not info.isreg()):
            raise ValueError(f"{info.name} is not a regular file")
        if kind in IMAGE:
            images[key] = info
        elif kind in ("cls", "json"):
            stored = archive.extractfile(info)
            content = stored.read(LABEL_BYTES) if stored else b""
            if kind == "cls":
                labels[key] = int(content)
            else:
                labels.setdefault(key, int(json.loads(content)[field]))
    for key, info in images.items():
        if key not in labels:
            raise ValueError(f"{info.name} has no .cls and no .json beside it")
        yield Member(number, info.name, info.offset_data, info.size, labels[key])
