"""Images decoded once, resized to a short side, and written into shards: ``convnext-study pack``.

A shard is written by one process, to the side, and renamed: what was stopped goes on with the
shards that are missing. ``pack.json`` is written last.
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
    PackedImages,
    PackFile,
    PartFile,
    Place,
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
JPEG = b"\xff\xd8"  # how such a file begins
SETTINGS = "packing.json"  # while it is made, and what is missing
LOCK = "packing.lock"


@dataclass(frozen=True)
class Packing:
    """How images are stored: ``side`` pixels is the short one at most, as raw pixels or JPEG files
    of a quality. ``on_corrupt``: stop at an image that cannot be read, or leave its place empty."""

    side: int = 256
    raw: bool = False
    quality: int = 90
    on_corrupt: OnCorruptImage = "stop"


def pack(
    uri: str,
    out: Path,
    how: Packing,
    jobs: int,
    report: Callable[[int, int], None] = lambda done, images: None,
) -> PackFile:
    """Pack a data set of image files into a folder, in so many processes; what is there is kept.

    ``report`` is called with how many images are done, and of how many. Raises DataError for data
    that is not of image files, or not what the folder was begun with, Busy while another process
    packs into it, RunFailed where one of the processes was killed.
    """
    data = open_data(uri)
    parts: dict[str, EncodedImages] = {}
    for name, images in (("train", data.train), ("val", data.val)):
        if isinstance(images, PackedImages):
            raise DataError(f"data {uri!r}: is packed already; pack the image files it was made of")
        if not isinstance(images, EncodedImages):
            raise DataError(f"data {uri!r}: is no image files; only those are packed")
        parts[name] = images
    wanted = PackFile(
        side=how.side,
        raw=how.raw,
        quality=how.quality,
        source=digest_of_data(fingerprint(data)),
        classes=data.classes,
    )
    make_folder(out)
    try:
        with locks.take(out / LOCK):
            return _pack(_Packer(parts, out, how), wanted, jobs, report)
    except locks.Held as error:
        todo = f"wait for it or stop it{error.cure}"
        raise Busy(f"{out}: {error.holder} packs into it; {todo}") from None


def _pack(
    packer: _Packer, wanted: PackFile, jobs: int, report: Callable[[int, int], None]
) -> PackFile:
    out = packer.out
    if (out / PACK).exists():
        found = read_pack(out)
        _check_same(out / PACK, found.model_copy(update={"parts": {}}), wanted)
        (out / LOCK).unlink()  # who waits for it finds all done
        return found
    settings = out / SETTINGS
    if settings.exists():
        _check_same(settings, parse_pack(settings), wanted)
    else:
        write_bytes(settings, wanted.model_dump_json().encode())
    packer.run(jobs, report)
    made = {name: packer.finish(name) for name in packer.parts}
    whole = wanted.model_copy(update={"parts": made})
    write_bytes(out / PACK, whole.model_dump_json().encode())
    for left in (settings, out / LOCK, *out.glob("*.places"), *out.glob(f".*{TEMPORARY}")):
        left.unlink(missing_ok=True)
    return whole


def _check_same(path: Path, found: PackFile, wanted: PackFile) -> None:
    for name, value in wanted:
        if getattr(found, name) != value:
            what = "other data" if name in ("source", "classes") else f"another {name}"
            raise DataError(f"{path}: was made with {what}; use another folder, or remove this one")


class _Packer:
    """Shards of a data set's parts, each by its part and number."""

    def __init__(self, parts: Mapping[str, EncodedImages], out: Path, how: Packing) -> None:
        self.parts, self.out, self.how = parts, out, how
        self._resize = ShortSide(how.side, "bicubic")

    def shards(self, part: str) -> range:
        return range(-(-len(self.parts[part]) // SHARD))

    def run(self, jobs: int, report: Callable[[int, int], None]) -> None:
        """Make those that are missing; ``report`` as in `pack`."""
        every = [(part, number) for part in self.parts for number in self.shards(part)]
        missing = [one for one in every if not self._places(*one).exists()]
        total = sum(map(len, self.parts.values()))
        done = total - sum(len(self._images(*one)) for one in missing)
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
                for future in as_completed([pool.submit(_make, one) for one in missing]):
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
                    f"{self.out}: a process that packs was killed; rerun the same command to go "
                    "on, with fewer --jobs where memory is short"
                ) from None

    def make(self, which: tuple[str, int]) -> int:
        """Write a shard, and where its images are. Returns how many those are."""
        part, number = which
        images, places, offset = self.parts[part], [], 0

        def write(file: IO[bytes]) -> None:
            nonlocal offset
            for index in self._images(part, number):
                content, height, width = self._stored(images, index)
                label, crc = int(images.labels[index]), zlib.crc32(content)
                places.append(Place(number, offset, len(content), label, crc, height, width))
                offset += file.write(content)

        path = shard_path(self.out, part, number)
        put_in_place(write_temporary(path, write), path)
        write_bytes(self._places(part, number), np.array(places, dtype="<i8").tobytes())
        return len(places)

    def finish(self, part: str) -> PartFile:
        """Write a part's index."""
        images = self.parts[part]
        places = b"".join(self._places(part, number).read_bytes() for number in self.shards(part))
        text, ends = images.names.parts()
        content = places + ends.astype("<i8").tobytes() + text
        write_bytes(index_path(self.out, part), content)
        sizes = [shard_path(self.out, part, one).stat().st_size for one in self.shards(part)]
        stored = np.frombuffer(places, "<i8").reshape(-1, len(Place._fields))
        empty = int((stored[:, Place._fields.index("size")] == 0).sum())
        shards = tuple(sizes)
        return PartFile(images=len(images), digest=digest(content), shards=shards, empty=empty)

    def _places(self, part: str, number: int) -> Path:
        return shard_path(self.out, part, number).with_suffix(".places")

    def _images(self, part: str, number: int) -> range:
        return range(number * SHARD, min((number + 1) * SHARD, len(self.parts[part])))

    def _stored(self, images: EncodedImages, index: int) -> tuple[bytes, int, int]:
        """What is stored of an image, and height and width where that is raw pixels."""
        try:
            pixels, _ = images.pixels(index)
        except CorruptImage:
            if self.how.on_corrupt == "stop":
                raise
            return b"", 0, 0
        height, width = pixels.shape[1:]
        small = min(height, width) <= self.how.side
        if small and not self.how.raw and (content := images.read(index))[:2] == JPEG:
            return content, 0, 0
        image = to_pil(pixels if small else self._resize(pixels))
        if self.how.raw:
            return image.tobytes(), image.height, image.width
        file = io.BytesIO()
        image.save(file, "JPEG", quality=self.how.quality)
        return file.getvalue(), 0, 0


_packer: _Packer  # of a process that packs


def _begin(packer: _Packer) -> None:
    global _packer
    _packer = packer
    forkserver.leave_with_owner()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends this process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forkserver.STOP_SIGNALS)


def _make(which: tuple[str, int]) -> int | DataError:
    """As a reader does it: what is wrong with an image travels as a value."""
    try:
        return _packer.make(which)
    except DataError as error:
        return error
