"""Folders of small pictures, and CIFAR's files, for the tests of data."""

import gzip
import hashlib
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convnext_study.data import open_data
from convnext_study.data.dataset import DataError, DatasetPair
from convnext_study.data.loader import make_readers
from convnext_study.data.pool import Readers
from convnext_study.data.transforms.image import train_transform, val_transform
from convnext_study.recipes import Recipe


def picture(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    """Coarse random colours, smooth enough that interpolation means something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """A grey PNG of a size and depth that need not be those of its rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data


def refused(uri: str, says: str, **how: Any) -> str:
    """Data that cannot be opened is refused in one line that says so, which is returned."""
    with pytest.raises(DataError, match=says) as caught:
        open_data(uri, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def readers_of(
    data: DatasetPair, recipe: Recipe, workers: int = 0, *, seed: int = 0, batch: int = 1
) -> Readers:
    """What reads images with a class each, in so many processes."""
    transforms = train_transform(data, recipe), val_transform(data, recipe)
    return make_readers(data, *transforms, seed, workers, batch)


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 4) -> Path:
    """``train`` and ``val`` with ``count`` JPEGs a class, no two alike."""
    seed = 0
    for part in ("train", "val"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                picture(seed).save(root / part / name / f"{index}.jpg")
                seed += 1
    return root


def make_fashion(root: Path, train: int = 40, test: int = 20, *, packed: bool = True) -> Path:
    """Fashion-MNIST's files with fewer images: image i is of class i % 10, its corner of grey i."""
    root.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("t10k", test)):
        pixels = np.zeros((count, 28, 28), dtype=np.uint8)
        pixels[:, :4, :4] = np.arange(count)[:, None, None]
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, content in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = np.array([0x800 + content.ndim, *content.shape], dtype=">u4").tobytes()
            file = root / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            whole = header + content.tobytes()
            file.write_bytes(gzip.compress(whole) if packed else whole)
    return root


def make_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> int:
    """A small data set in the files of CIFAR's own layout; returns its number of classes."""
    from torchvision import datasets

    kind, count, label = {
        "cifar10": (datasets.CIFAR10, 10, "labels"),
        "cifar100": (datasets.CIFAR100, 100, "fine_labels"),
    }[name]
    folder = root / kind.base_folder
    folder.mkdir()

    def write(file: str, content: dict[Any, Any]) -> list[str]:
        pickled = pickle.dumps(content)
        (folder / file).write_bytes(pickled)
        return [file, hashlib.md5(pickled).hexdigest()]  # noqa: S324  torchvision's choice

    random = np.random.default_rng(0)

    def images(first: int) -> dict[Any, Any]:
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        pixels[0] = np.repeat([255, 0, first], 1024)
        return {"data": pixels, label: [(first + i) % count for i in range(count)]}

    parts = {"train_list": kind.train_list, "test_list": kind.test_list}
    for attribute, files in parts.items():
        listed = [write(file, images(place)) for place, (file, _) in enumerate(files)]
        monkeypatch.setattr(kind, attribute, listed)
    names = {kind.meta["key"]: [f"class{number}" for number in range(count)]}
    file, check = write(kind.meta["filename"], names)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "filename": file, "md5": check})
    return count
