"""The embedded data: scikit-learn's optical digits, 1,797 real 8x8 scans (Alpaydin & Kaynak, 1998).

They are part of scikit-learn, so nothing is downloaded. They are resized to 32x32 and repeated to
three channels. The scans are ordered by writer, 14 in all, and no writer is in two parts.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from einops import repeat
from PIL import Image

from convnext_study.data.dataset import (
    DataError,
    DatasetPair,
    MemoryImages,
    channel_statistics,
    unreadable,
)
from convnext_study.data.sources import OpenRequest

SIZE = 32  # side in pixels
AT_ONCE = 10_000  # images resized together
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
# The first scan of each writer in scikit-learn's table, and the end: each writer repeats the digits
# from 0 to 9 in order (scikit-learn MOOC, "Sample grouping").
_FIRST_SCANS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
# The part of the data that each writer's scans belong to, written down so that no random generator
# and no library version can change it.
PARTS = ("train", "tune", "test")
_PART_OF_WRITER = (
    *("test", "train", "tune", "train", "test", "train", "test"),
    *("train", "test", "train", "tune", "test", "train", "test"),
)


def open_digits(_: str = "", __: OpenRequest | None = None) -> DatasetPair:
    """The scans of eight writers for training, and of six others for validation."""
    pixels, targets = read_scans()
    labels = torch.from_numpy(targets).long()
    images = upscale(torch.from_numpy(pixels).float() * (255 / 16))
    held_out = torch.from_numpy(part_mask("test"))
    train = MemoryImages(images[~held_out], labels[~held_out])
    mean, std = channel_statistics(train.images)
    return DatasetPair(
        classes=tuple(str(digit) for digit in range(10)),
        size=SIZE,
        mean=mean,
        std=std,
        train=train,
        val=MemoryImages(images[held_out], labels[held_out]),
        flips=False,
        val_groups=torch.from_numpy(writers())[held_out],
    )


def upscale(grey: torch.Tensor) -> torch.Tensor:
    """Resize (n, h, w) of 0 to 255 to (n, 3, SIZE, SIZE) uint8, in chunks."""
    resized = [
        F.interpolate(
            chunk[:, None].float(), size=(SIZE, SIZE), mode="bilinear", align_corners=False
        )
        .round()
        .to(torch.uint8)
        for chunk in torch.split(grey, AT_ONCE)
    ]
    return repeat(torch.cat(resized), "n 1 h w -> n c h w", c=3).contiguous()


def writers() -> npt.NDArray[np.int64]:
    """(1797,) the writer of each scan in scikit-learn's table, from 0 to 13."""
    counts = np.diff(_FIRST_SCANS)
    return np.repeat(np.arange(len(counts)), counts)


def part_mask(part: str) -> npt.NDArray[np.bool_]:
    """(1797,) which scans of scikit-learn's table are by writers of this part of `PARTS`."""
    by_writer: npt.NDArray[np.bool_] = np.array([p == part for p in _PART_OF_WRITER])
    return by_writer[writers()]


def read_scans() -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Images (1797, 8, 8) with values 0 to 16, and their digits."""
    rows = np.loadtxt(shipped("data/digits.csv.gz"), delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


@cache
def read_photograph(name: str) -> npt.NDArray[np.uint8]:
    """One of `PHOTOGRAPHS`, (3, H, W). Raises DataError if it cannot be read."""
    path = shipped(f"images/{name}")
    try:
        with Image.open(path) as image:
            pixels: npt.NDArray[np.uint8] = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise unreadable(str(path), error) from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def shipped(name: str) -> Path:
    """A data file of scikit-learn, without importing it, which takes seconds.

    Raises DataError if it is not installed.
    """
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(f"{name}: scikit-learn, which ships it, is not installed")
    return Path(package.submodule_search_locations[0], "datasets", name)
