"""The networks as data (no torch here): a frozen value for each family, equal to its JSON form.

Widths hold what is left after pruning, so a pruned network is a spec like any other. Where a block
reads only some channels of a stream that keeps its width, its spec holds how many (the first ones)
or which: a new network is the same for every choice of as many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.pruning.spec_fields import Fields, Read, count

POOL = "M"  # in a VGG's widths: 2x2 max-pooling
STEMS = ("imagenet", "cifar")
HEADS = ("linear", "512", "4096", "4096bn")

Widths: TypeAlias = tuple[tuple[int, ...], ...]
Blocks: TypeAlias = tuple[tuple[tuple[Any, ...], ...], ...]  # of stages, blocks, layers


@dataclass(frozen=True, kw_only=True)
class VggSpec(Fields):
    """3x3 convolutions in a row, with max-pooling between them.

    Args:
        widths: of the convolutions, ``"M"`` for pooling.
        head: ``linear``: global mean, classifier; ``512``: global mean, a hidden layer with
            BatchNorm, classifier; ``4096``: the map flattened, two hidden layers with dropout,
            classifier; ``4096bn``: BatchNorm in place of dropout.
        hidden: widths of the hidden layers; the head's own where there are none.
        conv_bias: whether convolutions have a bias.
        batchnorm: whether a BatchNorm follows each convolution.
        side: of the square map that is flattened, in positions; other maps are pooled to it.
    """

    family: ClassVar[str] = "vgg"
    widths: tuple[int | str, ...]
    head: str = "linear"
    hidden: tuple[int, ...] = ()
    conv_bias: bool = False
    batchnorm: bool = True
    side: int = 7

    def check(self) -> None:
        """A known head with as many hidden layers as it has, and a convolution at the start."""
        if self.head not in HEADS:
            raise SpecError(f"head: {self.head!r}{did_you_mean(self.head, list(HEADS))}")
        own = {"linear": (), "512": (512,)}.get(self.head, (4096, 4096))
        if not self.hidden:
            object.__setattr__(self, "hidden", own)
        if len(self.hidden) != len(own):
            raise SpecError(f"hidden: {self.hidden!r}; head {self.head} has {len(own)} layers")
        if not self.widths or self.widths[0] == POOL:
            raise SpecError(f"widths: {self.widths!r}; begin with a convolution")
        for width in self.widths:
            if width != POOL and type(width) is not int:
                raise SpecError(f"widths: {width!r}; use whole numbers and {POOL!r}")

    def to_dict(self) -> dict[str, Any]:
        """As for all families; hidden widths that are the head's own are left out."""
        values = super().to_dict()
        if VggSpec(widths=self.widths, head=self.head).hidden == self.hidden:
            values.pop("hidden", None)
        return values

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Widths between the pooling, the first convolution's left out."""
        found: list[tuple[int, ...]] = [()]
        for width in self.widths[1:]:
            if isinstance(width, int):
                found[-1] += (width,)
            else:
                found.append(())
        return tuple(found)

    @property
    def flattens(self) -> bool:
        """Whether the first linear layer reads the map's positions one by one."""
        return self.head in ("4096", "4096bn")


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
        _same_length(self.inner, self.widths)
        if list(self.widths) != sorted(self.widths):
            raise SpecError(f"widths: {self.widths!r}; shortcuts only add channels, so ascend")


@dataclass(frozen=True, kw_only=True)
class ImageNetBasicSpec(Fields):
    """ResNet-18 and -34, as torchvision and timm have them, with ``inner`` as in `ResNetSpec`."""

    family: ClassVar[str] = "resnet_imagenet_basic"
    inner: Widths

    def check(self) -> None:
        """Four stages."""
        _same_length(self.inner, range(4))


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
        _same_length(self.inner, range(4))
        _blocks_of(self.inner, (3,))


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
        _same_length(self.inner, self.widths)
        _blocks_of(self.inner, (3,))


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
        _same_length(self.inner[1:], self.transitions)
        _blocks_of(self.inner, (1, 2))

    def streams(self) -> tuple[int, ...]:
        """Channels at the end of each dense block."""
        found, stream = [], 2 * self.growth
        for layers in self.inner:
            found.append(stream + len(layers) * self.growth)
            stream = found[-1] // self.compression
        return tuple(found)


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
        _same_length(self.stages, self.widths)
        if self.stem not in STEMS:
            raise SpecError(f"stem: {self.stem!r}{did_you_mean(self.stem, list(STEMS))}")

    def branches(self) -> tuple[tuple[bool, ...], ...]:
        """Of each block, by stage, whether it has its branch."""
        return tuple((bool(first), *[True] * (count - bool(first))) for count, first in self.stages)


Spec: TypeAlias = (
    VggSpec
    | ResNetSpec
    | ImageNetBasicSpec
    | BottleneckSpec
    | PreResNetSpec
    | DenseNetSpec
    | PreActSpec
)
FAMILIES: dict[str, Any] = {
    one.family: one
    for one in (
        VggSpec,
        ResNetSpec,
        ImageNetBasicSpec,
        BottleneckSpec,
        PreResNetSpec,
        DenseNetSpec,
        PreActSpec,
    )
}


def from_dict(values: Mapping[str, Any]) -> Spec:
    """The inverse of ``to_dict``. Raises SpecError, one line that names the field."""
    fields = dict(values)
    family = fields.pop("family", None)
    if family not in FAMILIES:
        raise SpecError(f"family: {family!r}{did_you_mean(str(family), list(FAMILIES))}")
    known = {field.name: field for field in dataclasses.fields(FAMILIES[family])}
    for name in fields:
        if name not in known:
            raise SpecError(f"{name}: no such field of a {family}{did_you_mean(name, list(known))}")
    missing = dataclasses.MISSING
    for name, field in known.items():
        if field.default is missing and name not in fields:
            raise SpecError(f"{name}: a {family} needs it")
    spec: Spec = FAMILIES[family](**fields)
    return spec


def replace(spec: Spec, **changes: Any) -> Spec:
    """The same network with some fields changed. Raises SpecError for an unknown field."""
    return from_dict({**spec.to_dict(), **changes})


def count_stages(spec: Spec) -> int:
    """How many stages a network has: maps of different size, and in a VGG not the first layer's."""
    if isinstance(spec, VggSpec):
        return sum(len(group) > 0 for group in spec.groups())
    return len(spec.stages if isinstance(spec, PreActSpec) else spec.inner)


def field_names(family: str) -> tuple[str, ...]:
    """The fields of a family's specs."""
    return tuple(field.name for field in dataclasses.fields(FAMILIES[family]))


def _same_length(stages: Any, widths: Any) -> None:
    if len(stages) != len(widths):
        raise SpecError(f"stages: {len(stages)}; this network has {len(widths)}")


def _blocks_of(stages: Blocks, lengths: tuple[int, ...]) -> None:
    for block in (block for stage in stages for block in stage):
        if not isinstance(block, tuple) or len(block) not in lengths:
            raise SpecError(
                f"inner: {block!r}; a block has {' or '.join(map(str, lengths))} numbers"
            )
        if any(count(width) < 1 for width in block):
            raise SpecError(f"inner: {block!r}; use whole numbers of at least 1")
