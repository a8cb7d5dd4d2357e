"""Decode images once, resize them and write them into shards: ``convnext-study pack``.

A shard is written by one process, to a temporary file, and renamed: after an interruption only the
missing shards are made. ``pack.json`` is written last.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from convnext_study.data import fingerprint, forkserver, open_data
from convnext_study.data.dataset import CorruptImage, DataError, OnCorruptImage, digest, to_pil
from convnext_study.data.encoded import EncodedImages
from convnext_study.data.sources.packed import (
    PACK,
    IndexEntry,
    PackedImages,
    PackFile,
    PartFile,
    index_path,
    parse_pack,
    read_pack,
    shard_path,
)
from convnext_study.data.transforms.crops import ShortSide
from convnext_study.errors import Busy, RunFailed
from convnext_study.runs import locks
from convnext_study.runs.files import (
    TEMPORARY,
    make_folder,
    put_in_place,
    write_bytes,
    write_temporary,
)
from convnext_study.runs.fingerprints import digest_of_data

SHARD = 1024  # images
JPEG = b"\xff\xd8"  # the first bytes of such a file
SETTINGS = "packing.json"  # exists while shards are missing
LOCK = "packing.lock"


@dataclass(frozen=True)
class Packing:
    """How images are stored: with a short side of at most ``side`` pixels, as raw pixels or as JPEG
    files. ``on_corrupt``: stop at an image that cannot be read, or leave its entry empty."""

    side: int = 256
    raw: bool = False
    quality: int = 90
    on_corrupt: OnCorruptImage = "stop"


def pack(
    uri: str,
    out: Path,
    packing: Packing,
    jobs: int,
    report: Callable[[int, int], None] = lambda done, images: None,
) -> PackFile:
    """Pack a data set of image files into a folder, in ``jobs`` processes; finished shards stay.

    ``report`` is called with the number of finished images and of all. Raises DataError for data
    that does not consist of image files or differs from what the folder was started with, Busy
    while another process packs into it, RunFailed if one of the processes was killed.
    """
    data = open_data(uri)
    parts: dict[str, EncodedImages] = {}
    for name, images in (("train", data.train), ("val", data.val)):
        if isinstance(images, PackedImages):
            raise DataError(f"data {uri!r}: is already packed; pack the original image files")
        if not isinstance(images, EncodedImages):
            raise DataError(
                f"data {uri!r}: does not consist of image files; only those can be packed"
            )
        parts[name] = images
    wanted = PackFile(
        side=packing.side,
        raw=packing.raw,
        quality=packing.quality,
        source=digest_of_data(fingerprint(data)),
        classes=data.classes,
    )
    make_folder(out)
    try:
        with locks.take(out / LOCK):
            return _pack(_Packer(parts, out, packing), wanted, jobs, report)
    except locks.Held as error:
        remedy = f"wait for it or stop it{error.cure}"
        raise Busy(f"{out}: {error.holder} is packing into it; {remedy}") from None


def _pack(
    packer: _Packer, wanted: PackFile, jobs: int, report: Callable[[int, int], None]
) -> PackFile:
    out = packer.out
    if (out / PACK).exists():
        finished = read_pack(out)
        _check_same(out / PACK, finished.model_copy(update={"parts": {}}), wanted)
        (out / LOCK).unlink()  # a process that waits for it finds all done
        return finished
    settings = out / SETTINGS
    if settings.exists():
        _check_same(settings, parse_pack(settings), wanted)
    else:
        write_bytes(settings, wanted.model_dump_json().encode())
    packer.run(jobs, report)
    parts = {name: packer.finish(name) for name in packer.parts}
    packed = wanted.model_copy(update={"parts": parts})
    write_bytes(out / PACK, packed.model_dump_json().encode())
    for temporary in (settings, out / LOCK, *out.glob("*.places"), *out.glob(f".*{TEMPORARY}")):
        temporary.unlink(missing_ok=True)
    return packed


def _check_same(path: Path, existing: PackFile, wanted: PackFile) -> None:
    for name, value in wanted:
        if getattr(existing, name) != value:
            what = "other data" if name in ("source", "classes") else f"another {name}"
            raise DataError(f"{path}: was made with {what}; use another folder, or remove this one")


class _Packer:
    """Makes the shards of a data set's parts, each identified by its part and number."""

    def __init__(self, parts: Mapping[str, EncodedImages], out: Path, packing: Packing) -> None:
        self.parts, self.out, self.packing = parts, out, packing
        self._resize = ShortSide(packing.side, "bicubic")

    def shards(self, part: str) -> range:
        return range(-(-len(self.parts[part]) // SHARD))

    def run(self, jobs: int, report: Callable[[int, int], None]) -> None:
        """Make the missing shards; ``report`` as in `pack`."""
        shards = [(part, number) for part in self.parts for number in self.shards(part)]
        missing = [shard for shard in shards if not self._entries_path(*shard).exists()]
        total = sum(map(len, self.parts.values()))
        done = total - sum(len(self._images(*shard)) for shard in missing)
        report(done, total)
        processes = min(jobs, len(missing))
        if processes <= 1:
            for images in map(self.make, missing):
                done += images
                report(done, total)
            return
        context = forkserver.context(forkserver.READERS)
        before = set(multiprocessing.active_children())
        with ProcessPoolExecutor(processes, context, _begin, (self,)) as pool:
            try:
                for future in as_completed([pool.submit(_make, shard) for shard in missing]):
                    result = future.result()
                    if isinstance(result, DataError):
                        raise result
                    done += result
                    report(done, total)
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in set(multiprocessing.active_children()) - before:
                    process.kill()
                if not isinstance(error, BrokenProcessPool):
                    raise
                raise RunFailed(
                    f"{self.out}: a packing process was killed; rerun the same command to resume, "
                    "with fewer --jobs if memory is short"
                ) from None

    def make(self, shard: tuple[str, int]) -> int:
        """Write a shard and the positions of its images. Returns their number."""
        part, number = shard
        images, entries, offset = self.parts[part], [], 0

        def write(file: IO[bytes]) -> None:
            nonlocal offset
            for index in self._images(part, number):
                content, height, width = self._stored(images, index)
                label, crc = int(images.labels[index]), zlib.crc32(content)
                entries.append(IndexEntry(number, offset, len(content), label, crc, height, width))
                offset += file.write(content)

        path = shard_path(self.out, part, number)
        put_in_place(write_temporary(path, write), path)
        write_bytes(self._entries_path(part, number), np.array(entries, dtype="<i8").tobytes())
        return len(entries)

    def finish(self, part: str) -> PartFile:
        """Write a part's index."""
        images = self.parts[part]
        entries = b"".join(self._entries_path(part, n).read_bytes() for n in self.shards(part))
        text, ends = images.names.parts()
        content = entries + ends.astype("<i8").tobytes() + text
        write_bytes(index_path(self.out, part), content)
        sizes = [shard_path(self.out, part, n).stat().st_size for n in self.shards(part)]
        stored = np.frombuffer(entries, "<i8").reshape(-1, len(IndexEntry._fields))
        empty = int((stored[:, IndexEntry._fields.index("size")] == 0).sum())
        shards = tuple(sizes)
        return PartFile(images=len(images), digest=digest(content), shards=shards, empty=empty)

    def _entries_path(self, part: str, number: int) -> Path:
        return shard_path(self.out, part, number).with_suffix(".places")

    def _images(self, part: str, number: int) -> range:
        return range(number * SHARD, min((number + 1) * SHARD, len(self.parts[part])))

    def _stored(self, images: EncodedImages, index: int) -> tuple[bytes, int, int]:
        """An image's bytes as stored, and its height and width if they are raw pixels."""
        try:
            pixels, _ = images.pixels(index)
        except CorruptImage:
            if self.packing.on_corrupt == "stop":
                raise
            return b"", 0, 0
        height, width = pixels.shape[1:]
        fits = min(height, width) <= self.packing.side
        if fits and not self.packing.raw and (content := images.read(index))[:2] == JPEG:
            return content, 0, 0
        image = to_pil(pixels if fits else self._resize(pixels))
        if self.packing.raw:
            return image.tobytes(), image.height, image.width
        file = io.BytesIO()
        image.save(file, "JPEG", quality=self.packing.quality)
        return file.getvalue(), 0, 0


_packer: _Packer  # in a process that packs


def _begin(packer: _Packer) -> None:
    global _packer
    _packer = packer
    forkserver.exit_with_owner()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forkserver.STOP_SIGNALS)


def _make(shard: tuple[str, int]) -> int | DataError:
    """Errors of images are returned as values, as in the readers."""
    try:
        return _packer.make(shard)
    except DataError as error:
        return error
