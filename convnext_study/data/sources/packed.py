"""``packed:PATH``: images that `data.packing` decoded once, resized and wrote into shards.

Shards are memory-mapped and read in any order, so sampling and resuming are exact. The index has a
digest, each image a checksum.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from convnext_study.data.dataset import DataError, DatasetPair, digest, unreadable
from convnext_study.data.decode import MOST_ELONGATED, corrupt_image
from convnext_study.data.encoded import EncodedImages, Ints, Names
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.folder import Listing, of_parts
from convnext_study.errors import first_fault

PACK = "pack.json"  # written last: its presence means done


class IndexEntry(NamedTuple):
    """An entry of the index: where an image is stored and what it is. ``height`` and ``width`` are
    those of raw pixels, 0 if the image is a JPEG file."""

    shard: int
    offset: int
    size: int
    label: int
    crc: int
    height: int
    width: int


class PartFile(BaseModel):
    """A part's entry in ``pack.json``: the digest of its index, the bytes of each shard, and the
    number of images that could not be read and are empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: NonNegativeInt
    digest: str
    shards: tuple[NonNegativeInt, ...]
    empty: NonNegativeInt = 0


class PackFile(BaseModel):
    """``pack.json``: how the images were made, from what, and the parts that contain them.

    Args:
        version: of this format.
        side: length that the short side of larger images was resized to, in pixels.
        raw: whether raw pixels are stored instead of JPEG files.
        quality: of JPEG files, up to 100.
        source: the digest of the data that was packed.
        classes: names, in the order of the labels.
        parts: ``train`` and ``val``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    side: int
    raw: bool
    quality: int
    source: str
    classes: tuple[str, ...]
    parts: dict[Literal["train", "val"], PartFile] = {}


def shard_path(root: Path, part: str, number: int) -> Path:
    """The path of a part's shard."""
    return root / f"{part}-{number:05d}.bin"


def index_path(root: Path, part: str) -> Path:
    """The path of a part's index: an `IndexEntry` per image, then the images' `Names`."""
    return root / f"{part}.index"


class PackedImages(EncodedImages):
    """Images in shards, by their positions. Shards are memory-mapped when first needed."""

    def __init__(self, shards: Sequence[Path], entries: Ints, names: Names) -> None:
        super().__init__(entries[:, IndexEntry._fields.index("label")])
        self._shards, self._entries, self.names = tuple(map(str, shards)), entries, names
        self._maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": {}}

    def name(self, index: int) -> str:
        """The shard's path and the image's name in the data that was packed."""
        return f"{self._shards[self._entries[index, 0]]}:{self.names[index]}"

    def read(self, index: int) -> bytes:
        """The stored image, verified. Raises DataError, and CorruptImage if a bit has changed."""
        entry = IndexEntry(*map(int, self._entries[index]))
        if not entry.size:
            return b""  # an image that could not be read when it was packed
        if entry.shard not in self._maps:
            self._maps[entry.shard] = _map(self._shards[entry.shard])
        content = self._maps[entry.shard][entry.offset : entry.offset + entry.size]
        if zlib.crc32(content) != entry.crc:
            raise corrupt_image(
                self.name(index), "its checksum does not match; pack the data again"
            )
        return content

    def pixels(self, index: int) -> tuple[torch.Tensor, int]:
        """The image as a (3, H, W) uint8 tensor, and its label. Raises CorruptImage."""
        height, width = map(int, self._entries[index, -2:])
        if not height:
            return super().pixels(index)
        stored = torch.frombuffer(bytearray(self.read(index)), dtype=torch.uint8)
        return stored.view(height, width, 3).permute(2, 0, 1), int(self.labels[index])

    def digests(self) -> dict[str, str]:
        """Names are those of the data that was packed; the content is a digest of all checksums."""
        return {
            "names": self.names.digest(),
            "labels": digest(self.labels),
            "content": digest(np.ascontiguousarray(self._entries[:, 2:])),
        }


def _map(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(path, error) from None


def open_packed(path: str, request: OpenRequest) -> DatasetPair:
    """Packed data. Raises DataError if it is incomplete or was changed."""
    root = Path(path).expanduser()
    pack = read_pack(root)
    if "train" not in pack.parts and not request.val_alone:
        raise DataError(
            f"{root / PACK}: has no training part; pack the data again, or only evaluate"
        )
    wanted = [name for name in pack.parts if name == "val" or not request.val_alone]
    parts: dict[str, Listing] = {name: (_part(root, name, pack), pack.classes) for name in wanted}
    return of_parts(str(root), parts)


def read_pack(root: Path) -> PackFile:
    """The content of ``pack.json``. Raises DataError, one line."""
    path = root / PACK
    if not path.exists():
        raise DataError(
            f"{path}: no such file; run convnext-study pack DATA {root}, again if it was stopped"
        )
    pack = parse_pack(path)
    if pack.version != 1 or "val" not in pack.parts:
        raise DataError(
            f"{path}: was packed by another version of this package; pack the data again"
        )
    return pack


def parse_pack(path: Path) -> PackFile:
    """The content of such a file, also of unfinished packs. Raises DataError, one line."""
    try:
        return PackFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise unreadable(str(path), error) from None
    except ValidationError as error:
        raise DataError(f"{path}: {first_fault(error, PackFile.model_fields)}") from None


def _part(root: Path, name: Literal["train", "val"], pack: PackFile) -> PackedImages:
    path, part = index_path(root, name), pack.parts[name]
    shards = [shard_path(root, name, number) for number in range(len(part.shards))]
    try:
        content = path.read_bytes()
        sizes = [shard.stat().st_size for shard in shards]
    except OSError as error:
        raise unreadable(str(error.filename), error) from None
    width, numbers = len(IndexEntry._fields), part.images * (len(IndexEntry._fields) + 1)
    if digest(content) != part.digest or len(content) < numbers * 8:
        raise DataError(f"{path}: was changed after packing; restore it, or pack the data again")
    for shard, size, expected in zip(shards, sizes, part.shards, strict=True):
        if size != expected:
            raise DataError(f"{shard}: has {size:,} of {expected:,} bytes; restore it")
    index = np.frombuffer(content, dtype="<i8", count=numbers)
    entries = index[: part.images * width].reshape(-1, width)
    ends, text = index[part.images * width :], content[numbers * 8 :]
    _check(path, IndexEntry(*entries.T), np.array(sizes), len(pack.classes))
    if np.any(np.diff(ends, prepend=0) < 0) or (len(ends) and ends[-1] != len(text)):
        raise DataError(f"{path}: its list of names is not terminated; pack the data again")
    return PackedImages(shards, entries, Names.of(text, ends))


def _check(path: Path, entries: Any, sizes: Ints, classes: int) -> None:
    """Raises DataError for an image outside its shard or inconsistent with its index entry."""
    bad = (entries.shard < 0) | (entries.shard >= len(sizes))
    room = sizes[np.where(bad, 0, entries.shard)] if len(sizes) else 0
    bad |= (entries.offset < 0) | (entries.size < 0) | (entries.size > room - entries.offset)
    bad |= (entries.label < 0) | (entries.label >= classes)
    raw = (entries.height > 0) & (entries.width > 0)
    bad |= raw & (entries.size != entries.height * entries.width * 3)
    sides = entries.height, entries.width
    bad |= raw & (np.maximum(*sides) > MOST_ELONGATED * np.minimum(*sides))
    bad |= ~raw & ((entries.height != 0) | (entries.width != 0))
    if bad.any():
        raise DataError(f"{path}: image {int(bad.argmax())} is in no shard; pack the data again")
