"""What travels from the data to the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Erased(NamedTuple):
    """A box of the batch's image ``image`` in pixels, and the seed of the noise that fills it."""

    image: int
    top: int
    left: int
    height: int
    width: int
    seed: int


@dataclass(frozen=True)
class Batch:
    """Some images of one optimizer step, as they were read.

    Args:
        images: (n, 3, H, W) uint8.
        labels: (n,) int64; or of each image an array, (n, H, W) uint8 of a class for each pixel.
        places: (n,) int64, where each image stands in the optimizer's batch over all processes; of
            validation images, in the data set.
        step: the optimizer's step, from 0 over the whole run.
        erased: what is to be filled with noise.
        bad: names of images that could not be read: others stand in for them, or they are left out.
    """

    images: Tensor
    labels: Tensor
    places: Tensor
    step: int = 0
    erased: tuple[Erased, ...] = ()
    bad: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def pinned(self) -> Batch:
        """With images and labels in memory that a GPU can copy from by itself."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """With images and labels on a device; the rest stays with the host."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )
