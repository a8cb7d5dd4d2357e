"""Which positions the next segment computes, and the merge that keeps the others' logits."""

from __future__ import annotations

import torch
from torch import Tensor


def confidence(logits: Tensor) -> Tensor:
    """The largest softmax probability of each position: (N, C, h, w) to (N, 1, h, w)."""
    return logits.softmax(dim=1).amax(dim=1, keepdim=True)


def unsure(logits: Tensor, threshold: float) -> Tensor:
    """Where the next segment computes, (N, 1, h, w): where confidence is not above the threshold.

    At 1 that is everywhere, at 0 nowhere. A comparison has no gradient.
    """
    return confidence(logits) <= threshold


def merge(before: Tensor, logits: Tensor, computed: Tensor) -> Tensor:
    """``logits`` where they were computed, the exit's before elsewhere; gradients go to both."""
    return torch.where(computed, logits, before)


def random_order(logits: Tensor) -> Tensor:
    """A number from 0 to 1 for each position (N, 1, h, w), from torch's global generator.

    Positions below a share are computed: a smaller share takes a part of a larger one's positions,
    as confident positions stay confident.
    """
    return torch.rand_like(logits[:, :1])
