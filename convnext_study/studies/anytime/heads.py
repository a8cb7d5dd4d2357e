"""The heads of the exits: the authors' original ones (EE) and their redesigned ones (RH)."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


def original_head(channels: int, classes: int) -> nn.Sequential:
    """The authors' first heads (EE), whose convolutions have a bias.

    Maps (N, channels, h, w) to logits (N, classes, h, w).
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, classes, 1),
    )


class FlexHead(nn.Module):
    """A redesigned head (RH) that sees context at little cost: pooled down step by step, and up.

    Before every 1x1 convolution (with bias) the map is halved by 2x2 average pooling, or doubled
    bilinearly; BatchNorm and ReLU follow each but the last. Maps (N, channels, h, w) to logits
    (N, classes, h, w). Where a side is odd, pooling rounds up and the way back ends at the same
    side; the authors' form needs sides that divide by ``2 ** poolings``, how often the map is
    halved. ``width``: channels inside.
    """

    def __init__(self, channels: int, width: int, classes: int, poolings: int) -> None:
        super().__init__()
        self.poolings = poolings
        inside = [width] * (2 * poolings - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 1) for c_in, c_out in pairwise([channels, *inside, classes])
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_out) for c_out in inside)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to logits of the same size."""
        first = self.convs[0](F.avg_pool2d(x, 2, ceil_mode=True))
        return self.after_convolution(first, (x.shape[-2], x.shape[-1]))

    def after_convolution(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The rest for the first convolution's output, for a map of height and width ``size``."""
        sizes = [size]
        for step, conv in enumerate(self.convs):
            if 0 < step < self.poolings:
                sizes.append((x.shape[-2], x.shape[-1]))
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            elif step >= self.poolings:
                x = upsample(x, sizes.pop())
            if step > 0:
                x = conv(x)
            if step < len(self.norms):
                x = F.relu(self.norms[step](x), inplace=True)
        return x


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly, corners not aligned, as the authors do everywhere."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    if x.is_meta:  # only the size is wanted, and torch takes 45 ms to find it
        return x.new_empty((*x.shape[:2], *size))
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
