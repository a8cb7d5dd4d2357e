"""Augmentation of a whole batch in memory, drawn from a generator of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

SHIFT = 8  # a shift of up to an eighth of the side: CIFAR's usual 4 pixels of 32


def shift(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move each image by its own random offset, filling with its edge value.

    The usual "pad and crop" of 32x32 images. Maps (N, C, H, W) to the same shape.
    """
    count, channels, height, width = images.shape
    reach = max(height // SHIFT, 1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)
    rows = offsets[0, :, None] + torch.arange(height)
    columns = offsets[1, :, None] + torch.arange(width)
    sample = torch.arange(count)
    return padded[
        sample[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
