"""Where one segment of a network computes: one mask an image, at every size of its maps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")


class SizedMask:
    """A segment's mask at one size of map, with what is derived of it when it is asked for.

    Args:
        active: (N, 1, h, w), true where something is computed.
    """

    def __init__(self, active: Tensor) -> None:
        self.active = active
        self._derived: dict[Hashable, Any] = {}

    @functools.cached_property
    def share(self) -> float:
        """The share of positions that are computed, over the batch. On a GPU this waits for it."""
        return float(self.active.double().mean())

    def derive(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once for every key and shared by convolutions."""
        if key not in self._derived:
            self._derived[key] = make()
        found: T = self._derived[key]
        return found


class SegmentMask:
    """The mask that rules the convolutions between one exit and the next.

    Without a mask every position is computed.
    """

    def __init__(self) -> None:
        self.active: Tensor | None = None
        self._sizes: dict[tuple[int, int], SizedMask] = {}

    def set(self, active: Tensor | None) -> None:
        """Take the mask (N, 1, h, w) of the exit before, at its logits' size; None for no mask."""
        self.active = active
        self._sizes = {}

    def at(self, size: tuple[int, int]) -> SizedMask | None:
        """The mask at another size, nearest neighbour; None where nothing is masked.

        The authors resize the logits and compare afterwards, which is the same: nearest neighbour
        only selects positions.
        """
        if self.active is None:
            return None
        if size not in self._sizes:
            self._sizes[size] = SizedMask(resized(self.active, size))
        return self._sizes[size]


def resized(active: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (N, 1, h, w) at another height and width, by nearest neighbour."""
    if tuple(active.shape[-2:]) == size:
        return active
    return F.interpolate(active.to(torch.uint8), size, mode="nearest").bool()
