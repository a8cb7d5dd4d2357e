"""The embedded data: scikit-learn's optical digits, 1,797 real 8x8 scans (Alpaydin & Kaynak, 1998).

They come with scikit-learn, so nothing is downloaded. Drawn up to 32x32 and three channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import repeat

from convnext_study.training.data.images import Data, MemoryImages, channel_statistics

SIZE = 32
HELD_OUT_EVERY = 3


def open_digits() -> Data:
    """1,196 training and 601 validation images: every third of each class is held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target).long()
    grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    grey = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    images = repeat(grey.round().to(torch.uint8), "n 1 h w -> n c h w", c=3).contiguous()
    held_out = _every_third_of_each_class(labels)
    train = MemoryImages(images[~held_out], labels[~held_out])
    mean, std = channel_statistics(train.images)
    return Data(
        uri="digits",
        classes=tuple(str(name) for name in digits.target_names),
        size=SIZE,
        mean=mean,
        std=std,
        train=train,
        val=MemoryImages(images[held_out], labels[held_out]),
        flips=False,
    )


def _every_third_of_each_class(labels: torch.Tensor) -> torch.Tensor:
    """A split that no random generator and no version of a library can change."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        held_out[(labels == label).nonzero().flatten()[::HELD_OUT_EVERY]] = True
    return held_out
