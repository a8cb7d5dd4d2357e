"""Residual networks as data (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.pruning.spec_fields import (
    Blocks,
    Fields,
    Read,
    Widths,
    blocks_of,
    same_length,
    some_channels,
)

STEMS = ("imagenet", "cifar")


@dataclass(frozen=True, kw_only=True)
class ResNetSpec(Fields):
    """A ResNet of basic blocks for small images, whose shortcuts have no parameters.

    Args:
        inner: output widths of each block's first convolution, by stage.
        widths: of the streams of the stages.
    """

    family: ClassVar[str] = "resnet_cifar"
    inner: Widths
    widths: tuple[int, ...] = (16, 32, 64)

    def check(self) -> None:
        """One width for each stage, none narrower than the one before."""
        same_length(self.inner, self.widths)
        if list(self.widths) != sorted(self.widths):
            raise SpecError(f"widths: {self.widths!r}; shortcuts only add channels, so ascend")


@dataclass(frozen=True, kw_only=True)
class ImageNetBasicSpec(Fields):
    """ResNet-18 and -34, as torchvision and timm have them, with ``inner`` as in `ResNetSpec`."""

    family: ClassVar[str] = "resnet_imagenet_basic"
    inner: Widths

    def check(self) -> None:
        """Four stages."""
        same_length(self.inner, range(4))


@dataclass(frozen=True, kw_only=True)
class BottleneckSpec(Fields):
    """ResNet-50 and deeper, as torchvision and timm have them, the stride on the 3x3.

    Args:
        inner: of each block, by stage: channels of the stream it reads, widths of its 1x1 and 3x3.
        shortcut_bias: whether the 1x1 of a changing shortcut has a bias.
    """

    family: ClassVar[str] = "resnet50"
    inner: Blocks
    shortcut_bias: bool = False

    def check(self) -> None:
        """Four stages, three numbers for a block."""
        same_length(self.inner, range(4))
        blocks_of(self.inner, (3,))


@dataclass(frozen=True, kw_only=True)
class PreResNetSpec(Fields):
    """A pre-activation ResNet of bottlenecks for small images (He et al., 2016b).

    Args:
        inner: of each block, by stage: channels of the stream it reads, widths of its first 1x1
            and its 3x3. `preresnet` makes the whole ones.
        last: channels that the classifier reads.
        widths: of the stages' 3x3; the stream is four times as wide.
    """

    family: ClassVar[str] = "preresnet"
    inner: Blocks
    last: Read
    widths: tuple[int, ...] = (16, 32, 64)

    def check(self) -> None:
        """One width for each stage, three numbers for a block."""
        same_length(self.inner, self.widths)
        blocks_of(self.inner, (3,))
        some_channels(last=self.last)


@dataclass(frozen=True, kw_only=True)
class PreActSpec(Fields):
    """A pre-activation ResNet-50 of which whole residual branches are left out.

    Args:
        stages: blocks whose branch is left, and whether the first is one of them: that block stays
            in any case, for its norm and its shortcut.
        widths: of the stages' 3x3; the stream is four times as wide.
        stem: ``imagenet``: 7x7 with stride 2 and max-pooling; ``cifar``: 3x3.
    """

    family: ClassVar[str] = "preact50"
    stages: tuple[tuple[int, bool], ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: str = "imagenet"

    def check(self) -> None:
        """One width for each stage, and a known stem."""
        same_length(self.stages, self.widths)
        if self.stem not in STEMS:
            raise SpecError(f"stem: {self.stem!r}{did_you_mean(self.stem, list(STEMS))}")

    def branches(self) -> tuple[tuple[bool, ...], ...]:
        """Of each block, by stage, whether it has its branch."""
        return tuple((bool(first), *[True] * (count - bool(first))) for count, first in self.stages)
