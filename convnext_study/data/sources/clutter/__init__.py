"""``clutter``: scanned digits among pieces of others over photographs, composed on the fly.

The data set is ours, and its results do not transfer to others: 32x32 images in colour, made from
scikit-learn's 1,797 scans and two photographs. Training images are new in every epoch; the test
images are fixed. Scans and texture are in three parts that share no writer and no piece of a
photograph: one for training, one for testing, and one, ``clutter:tune``, for choosing difficulty,
recipe and epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from convnext_study.data.dataset import (
    DataError,
    DatasetPair,
    InMemoryDataset,
    MemoryImages,
    channel_statistics,
    digest,
)
from convnext_study.data.rng import fold_in
from convnext_study.data.sources import OpenRequest
from convnext_study.data.sources.clutter.scene import SIZE, Part, Scene, compose, read_part
from convnext_study.errors import did_you_mean

# Chosen on the tuning part, with the first, a middle and the last row of the nano road: the first
# reaches 82 % at medium. Scans are large, since networks learn small ones late and unevenly, but
# of low contrast.
MEDIUM = "medium"
SCENES = {
    "easy": Scene(2, (24, 30), 10, (70, 110), (20, 60), (0.2, 0.5)),
    MEDIUM: Scene(3, (24, 30), 15, (50, 100), (20, 65), (0.3, 0.7)),
    "hard": Scene(4, (22, 30), 20, (45, 95), (25, 70), (0.4, 0.8)),
}
TUNE = "tune"
TRAIN_EACH, HELD_OUT_EACH = 12, 13  # images per scan: the test part has 10,231 in all
CHUNK = 256  # images composed at once when a whole part is; more do not fit the cache


@dataclass(frozen=True)
class ComposedImages(InMemoryDataset):
    """Images of one part, each composed on demand, from its number.

    Args:
        scene: their difficulty.
        part: scans and texture to compose from.
        each: number of images per scan of the part.
        key: of the draws.
    """

    scene: Scene
    part: Part
    each: int
    key: int

    @property
    def labels(self) -> torch.Tensor:
        """(N,) int64."""
        return torch.from_numpy(self.part.labels).repeat(self.each)

    @property
    def writers(self) -> torch.Tensor:
        """(N,) int64: who wrote the scan that each image shows."""
        return torch.from_numpy(self.part.writers).repeat(self.each)

    def __len__(self) -> int:
        return self.each * len(self.part.scans)

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at (n,) int64 indices: (n, 3, H, W) uint8."""
        images = indices.numpy()
        shown = images % len(self.part.scans)
        pixels = compose(self.scene, self.part, shown, self.key, images)
        return torch.from_numpy(pixels.astype(np.uint8))

    def of_epoch(self, seed: int, epoch: int) -> ComposedImages:
        """The images of an epoch (from 0) of a run with this seed."""
        return replace(self, key=fold_in(seed, "clutter", epoch))

    def digests(self) -> dict[str, str]:
        """Of the inputs of images, and of some images, which also depend on the composition."""
        sample = self.at(torch.arange(min(len(self), CHUNK)))
        return {
            "content": digest(self.part.ink, self.part.texture, sample.numpy()),
            "labels": digest(self.labels.numpy()),
        }


def open_clutter(text: str, _: OpenRequest) -> DatasetPair:
    """9,024 new training images per epoch, and 10,231 fixed test images (3,354 for tuning).

    ``text`` is ``easy``, ``medium`` or ``hard`` and ``tune``, either of them, or empty. Raises
    DataError for other words.
    """
    difficulty, held_out = _choices(text)
    train = ComposedImages(SCENES[difficulty], read_part("train"), TRAIN_EACH, 0).of_epoch(0, 0)
    mean, std = channel_statistics(train.at(torch.arange(CHUNK)))
    val, writers = _fixed(difficulty, held_out)
    return DatasetPair(
        classes=tuple(str(digit) for digit in range(10)),
        size=SIZE,
        mean=mean,
        std=std,
        train=train,
        val=val,
        flips=False,
        val_groups=writers,
        val_once=held_out != TUNE,
    )


@lru_cache(maxsize=2)  # of 31 MB
def _fixed(difficulty: str, part: str) -> tuple[MemoryImages, torch.Tensor]:
    """All images of a part, cached per process, and the writers of their scans."""
    composed = ComposedImages(SCENES[difficulty], read_part(part), HELD_OUT_EACH, 0)
    composed = replace(composed, key=fold_in(0, "clutter", part))
    chunks = torch.split(torch.arange(len(composed)), CHUNK)
    pixels = torch.cat([composed.at(chunk) for chunk in chunks])
    return MemoryImages(pixels, composed.labels), composed.writers


def _choices(text: str) -> tuple[str, str]:
    """The difficulty, and the part to evaluate on."""
    difficulty, part = MEDIUM, "test"
    words = text.split(",") if text else []
    for word in words:
        if word == TUNE:
            part = TUNE
        elif word in SCENES:
            difficulty = word
        else:
            hint = did_you_mean(word, [*SCENES, TUNE])
            raise DataError(f"data 'clutter:{text}': {word!r} is unknown{hint}")
    if len(words) > (difficulty in words) + (part in words):
        raise DataError(
            f"data 'clutter:{text}': takes one difficulty, optionally with {TUNE}, as in "
            f"clutter:hard,{TUNE}"
        )
    return difficulty, part
