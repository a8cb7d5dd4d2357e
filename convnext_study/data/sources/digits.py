"""The embedded data: scikit-learn's optical digits, 1,797 real 8x8 scans (Alpaydin & Kaynak, 1998).

They come with scikit-learn, so nothing is downloaded. Drawn up to 32x32 and three channels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import repeat

from convnext_study.data.dataset import DatasetPair, MemoryImages, channel_statistics

SIZE = 32  # pixels a side
HELD_OUT_EVERY = 3


def open_digits(_: str = "", *, download: bool = False) -> DatasetPair:
    """1,195 training and 602 validation images: every third of each class is held out."""
    pixels, targets = read_scans()
    labels = torch.from_numpy(targets).long()
    grey = torch.from_numpy(pixels).float()[:, None] * (255 / 16)
    grey = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images = repeat(grey.round().to(torch.uint8), "n 1 h w -> n c h w", c=3).contiguous()
    held_out = _every_third_of_each_class(labels)
    train = MemoryImages(images[~held_out], labels[~held_out])
    mean, std = channel_statistics(train.images)
    return DatasetPair(
        uri="digits",
        classes=tuple(str(digit) for digit in range(10)),
        size=SIZE,
        mean=mean,
        std=std,
        train=train,
        val=MemoryImages(images[held_out], labels[held_out]),
        flips=False,
    )


def read_scans() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) with values 0 to 16, and their digits."""
    # The table alone: importing scikit-learn takes longer than an epoch of the nano road.
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations or []) if package else []:
        table = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if table.exists():
            rows = np.loadtxt(table, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(int)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target


def _every_third_of_each_class(labels: torch.Tensor) -> torch.Tensor:
    """A split that no random generator and no version of a library can change."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        held_out[(labels == label).nonzero().flatten()[::HELD_OUT_EVERY]] = True
    return held_out
