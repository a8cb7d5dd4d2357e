"""Augmentation of a whole batch in memory; the draws are made first, for the whole batch.

What is drawn for an image then depends on its place in the optimizer's batch alone, and not on
how that batch is cut into pieces.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

SHIFT = 8  # a shift of up to an eighth of the side: CIFAR's usual 4 pixels of 32


def reach(side: int) -> int:
    """The furthest that an image of this side is shifted, in pixels."""
    return max(side // SHIFT, 1)


def draw_offsets(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Random offsets for ``shift``: (2, count), each from 0 to twice the reach."""
    return torch.randint(0, 2 * reach(side) + 1, (2, count), generator=generator)


def draw_mirrored(count: int, generator: torch.Generator) -> torch.Tensor:
    """Which images ``flip`` mirrors: (count,) bool, each with probability one half."""
    return torch.rand(count, generator=generator) < 0.5


def shift(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move each image by its own offset (rows, columns), filling with its edge value.

    The usual "pad and crop" of 32x32 images. Maps (N, C, H, W) to the same shape.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (reach(height),) * 4, mode="replicate")
    # Every placement of the crop is a view; indexing copies the one of each image.
    placements = padded.unfold(2, height, 1).unfold(3, width, 1)
    return placements[torch.arange(len(images)), :, offsets[0], offsets[1]]


def flip(images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Mirror the images where ``mirrored`` (N,) is set."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
