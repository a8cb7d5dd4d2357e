"""A DenseNet as data (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convnext_study.studies.pruning.spec_fields import (
    Blocks,
    Fields,
    Read,
    blocks_of,
    same_length,
    some_channels,
)


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec(Fields):
    """A DenseNet for small images (Huang et al., 2017).

    Args:
        inner: of each layer, by dense block: channels of the stream it reads and, in a bottleneck,
            the width of its 1x1. `densenet` makes the whole ones.
        transitions: channels that each 1x1 between dense blocks reads.
        last: channels that the classifier reads.
        growth: channels that a layer adds; the first convolution has twice as many.
        compression: by which a transition narrows the stream.
    """

    family: ClassVar[str] = "densenet"
    inner: Blocks
    transitions: tuple[Read, ...]
    last: Read
    growth: int = 12
    compression: int = 1

    def check(self) -> None:
        """A transition between any two dense blocks, one or two numbers for a layer."""
        same_length(self.inner[1:], self.transitions)
        blocks_of(self.inner, (1, 2))
        some_channels(last=self.last)
        for read in self.transitions:
            some_channels(transitions=read)

    def streams(self) -> tuple[int, ...]:
        """Channels at the end of each dense block."""
        found, stream = [], 2 * self.growth
        for layers in self.inner:
            found.append(stream + len(layers) * self.growth)
            stream = found[-1] // self.compression
        return tuple(found)
