"""The networks as data: a frozen value for each family, equal to its JSON form. Imports no torch.

Widths are those left after pruning, so a pruned network is a spec like any other. Where a block
reads only some channels of a stream that keeps its width, its spec says how many (the first ones)
or which; a network trained from scratch is the same for every choice of as many.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from convnext_study.errors import did_you_mean
from convnext_study.roadmap import spec as roadmap_spec
from convnext_study.roadmap.spec import SpecError

Count: TypeAlias = Annotated[int, Field(ge=1)]
Widths: TypeAlias = tuple[tuple[Count, ...], ...]
# How many channels of a stream are read, or which.
ChannelSelection: TypeAlias = (
    Count | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
)
# By stage and block: channels of the stream that are read, and the widths of two layers.
Blocks: TypeAlias = tuple[tuple[tuple[ChannelSelection, Count, Count], ...], ...]
POOL = "M"  # in a VGG's widths: 2x2 max-pooling
SIDE = 7  # positions, of the square map that a VGG flattens; other maps are pooled to it
# Of a VGG, with the widths of its hidden layers.
HEADS = {"linear": (), "512": (512,), "4096": (4096, 4096), "4096bn": (4096, 4096)}


class BaseSpec(roadmap_spec.Spec):
    """Base of the frozen dataclasses of all families: plain values in, plain values out."""

    family: ClassVar[str]
    is_timms: ClassVar[bool] = False  # timm's ResNet, narrowed
    stem_reduction: ClassVar[int] = 1  # the stem's stride in all

    @classmethod
    def kind(cls) -> str:
        """What errors call it."""
        return f"a {cls.family}"

    def check(self) -> None:
        """Check the fields' types and the number of stages. Raises SpecError."""
        for name, adapter in _adapters(self.family).items():
            try:
                adapter.validate_python(getattr(self, name), strict=True)
            except ValidationError as error:
                first, *others = error.errors()
                of_input = [first, *(other for other in others if other["input"] is first["input"])]
                reasons = dict.fromkeys(
                    fault["msg"][0].lower() + fault["msg"][1:] for fault in of_input
                )
                raise SpecError(f"{name}: {first['input']!r}; {' or '.join(reasons)}") from None
        stages: Any = getattr(self, "inner", getattr(self, "stages", None))
        if stages is not None and len(stages) != self.stage_count:
            raise SpecError(f"stages: {len(stages)}; this network has {self.stage_count}")

    @property
    def stage_count(self) -> int:
        """Number of stages: one per stream width, or four."""
        return len(getattr(self, "widths", range(4)))

    @property
    def reduction(self) -> int:
        """The image's side over that of the map that the head reads."""
        return int(self.stem_reduction * 2 ** (self.stage_count - 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the family's name first; fields at their default are left out."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        values = super().to_dict()
        changed = {
            name: value for name, value in values.items() if getattr(self, name) != defaults[name]
        }
        return {"family": self.family, **changed}


@dataclass(frozen=True, kw_only=True)
class VggSpec(BaseSpec):
    """3x3 convolutions in a row, with max-pooling between them.

    Args:
        widths: of the convolutions, ``"M"`` for pooling.
        head: ``linear``: global mean, classifier; ``512``: a hidden layer with BatchNorm between
            them; ``4096``: the map flattened, two hidden layers with dropout, classifier;
            ``4096bn``: BatchNorm in place of dropout.
        hidden: widths of the hidden layers. (default: the head's own)
    """

    family: ClassVar[str] = "vgg"
    widths: tuple[Count | Literal["M"], ...]
    head: str = "linear"
    hidden: tuple[Count, ...] = ()
    conv_bias: bool = False
    batchnorm: bool = True

    def check(self) -> None:
        """Check the head and its hidden layers, and that a convolution comes first."""
        if self.head not in HEADS:
            raise SpecError(f"head: {self.head!r}{did_you_mean(self.head, list(HEADS))}")
        default = HEADS[self.head]
        if not self.hidden:
            object.__setattr__(self, "hidden", default)
        super().check()
        if len(self.hidden) != len(default):
            raise SpecError(f"hidden: {self.hidden!r}; head {self.head} has {len(default)} layers")
        if not self.widths or self.widths[0] == POOL:
            raise SpecError(f"widths: {self.widths!r}; must begin with a convolution")

    def to_dict(self) -> dict[str, Any]:
        """As for all families; default hidden widths are left out."""
        values = super().to_dict()
        if self.hidden == HEADS[self.head]:
            values.pop("hidden", None)
        return values

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Widths between the pooling layers, without the first convolution's."""
        groups: list[tuple[int, ...]] = [()]
        for width in self.widths[1:]:
            if isinstance(width, int):
                groups[-1] += (width,)
            else:
                groups.append(())
        return tuple(groups)

    @property
    def stage_count(self) -> int:
        """Number of map sizes after the first convolution."""
        return sum(map(bool, self.groups()))

    @property
    def reduction(self) -> int:
        """As for all families, from pooling; the last one belongs to the head."""
        return int(2 ** self.widths[:-1].count(POOL))

    @property
    def flattens(self) -> bool:
        """Whether the head flattens the map."""
        return self.head in ("4096", "4096bn")


@dataclass(frozen=True, kw_only=True)
class ResNetSpec(BaseSpec):
    """A ResNet of basic blocks for small images, with parameter-free shortcuts.

    ``inner`` are the widths of each block's first convolution, by stage; ``widths`` the streams'.
    """

    family: ClassVar[str] = "resnet_cifar"
    inner: Widths
    widths: tuple[Count, ...] = (16, 32, 64)

    def check(self) -> None:
        """As for all families, and check that no stage is narrower than the one before."""
        super().check()
        if list(self.widths) != sorted(self.widths):
            raise SpecError(
                f"widths: {self.widths!r}; must be ascending, since shortcuts only add channels"
            )


@dataclass(frozen=True, kw_only=True)
class ImageNetBasicSpec(BaseSpec):
    """ResNet-18 and -34, as torchvision and timm have them, with ``inner`` as in `ResNetSpec`."""

    family: ClassVar[str] = "resnet_imagenet_basic"
    is_timms: ClassVar[bool] = True
    stem_reduction: ClassVar[int] = 4
    inner: Widths


@dataclass(frozen=True, kw_only=True)
class BottleneckSpec(BaseSpec):
    """ResNet-50 and deeper, as torchvision and timm have them, the stride on the 3x3.

    ``inner`` is as in `PreResNetSpec`; with ``shortcut_bias`` the shortcuts' 1x1 have a bias.
    """

    family: ClassVar[str] = "resnet50"
    is_timms: ClassVar[bool] = True
    stem_reduction: ClassVar[int] = 4
    inner: Blocks
    shortcut_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class PreResNetSpec(BaseSpec):
    """A pre-activation ResNet of bottlenecks for small images (He et al., 2016b).

    ``inner`` has for each block, by stage, the channels of the stream that it reads and the widths
    of its first 1x1 and its 3x3; ``last`` the channels that the classifier reads; ``widths`` those
    of the stages' 3x3, a quarter of the stream's. `preresnet` makes the unpruned ones.
    """

    family: ClassVar[str] = "preresnet"
    inner: Blocks
    last: ChannelSelection
    widths: tuple[Count, ...] = (16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class PreActSpec(BaseSpec):
    """A pre-activation ResNet-50 without some of its residual branches.

    ``stages`` have the number of blocks that keep their branch, and whether the first is one of
    them: that block stays in any case, for its norm and shortcut. ``widths`` are as in
    `PreResNetSpec`.
    """

    family: ClassVar[str] = "preact50"
    stem_reduction: ClassVar[int] = 4
    stages: tuple[tuple[Annotated[int, Field(ge=0)], bool], ...]
    widths: tuple[Count, ...] = (64, 128, 256, 512)

    def branches(self) -> tuple[tuple[bool, ...], ...]:
        """For each block, by stage, whether it has its branch."""
        return tuple((bool(first), *[True] * (count - bool(first))) for count, first in self.stages)


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec(BaseSpec):
    """A DenseNet for small images (Huang et al., 2017).

    ``inner`` has for each layer, by dense block, the channels of the stream that it reads and, in a
    bottleneck, the width of its 1x1; ``transitions`` and ``last`` the channels that each 1x1
    between dense blocks and the classifier read. A layer adds ``growth`` channels, the stem twice
    as many; a transition divides the stream by ``compression``. `densenet` makes the unpruned ones.
    """

    family: ClassVar[str] = "densenet"
    inner: tuple[tuple[tuple[ChannelSelection] | tuple[ChannelSelection, Count], ...], ...]
    transitions: tuple[ChannelSelection, ...]
    last: ChannelSelection
    growth: Count = 12
    compression: Count = 1

    @property
    def stage_count(self) -> int:
        """Number of dense blocks: one more than the transitions between them."""
        return len(self.transitions) + 1


SmallSpec: TypeAlias = VggSpec | ResNetSpec | PreResNetSpec | DenseNetSpec | PreActSpec
Spec: TypeAlias = SmallSpec | ImageNetBasicSpec | BottleneckSpec
FAMILIES: dict[str, Any] = {spec.family: spec for spec in get_args(Spec)}


def from_dict(values: Mapping[str, Any]) -> Spec:
    """The inverse of ``to_dict``. Raises SpecError, one line that names the field."""
    fields = dict(values)
    family = fields.pop("family", None)
    if family not in FAMILIES:
        raise SpecError(f"family: {family!r}{did_you_mean(str(family), list(FAMILIES))}")
    for field in dataclasses.fields(FAMILIES[family]):
        if field.default is dataclasses.MISSING and field.name not in fields:
            raise SpecError(f"{field.name}: a {family} needs it")
    spec: Spec = FAMILIES[family].from_dict(fields)
    return spec


def preresnet(blocks: int, widths: tuple[int, ...] = (16, 32, 64)) -> PreResNetSpec:
    """An unpruned PreResNet with ``blocks`` in each stage; 18 make PreResNet-164."""
    inner, stream = [], widths[0]
    for width in widths:
        inner.append(((stream, width, width), *[(4 * width, width, width)] * (blocks - 1)))
        stream = 4 * width
    return PreResNetSpec(inner=tuple(inner), last=stream, widths=widths)


def densenet(
    blocks: int, growth: int = 12, compression: int = 1, bottleneck: bool = False, stages: int = 3
) -> DenseNetSpec:
    """An unpruned DenseNet with ``blocks`` layers in each dense block; 12 make DenseNet-40."""
    hidden = (4 * growth,) if bottleneck else ()
    inner, ends, stream = [], [], 2 * growth
    for _ in range(stages):
        inner.append(tuple((stream + layer * growth, *hidden) for layer in range(blocks)))
        ends.append(stream + blocks * growth)
        stream = ends[-1] // compression
    *transitions, last = ends
    return DenseNetSpec(
        inner=tuple(inner),
        transitions=tuple(transitions),
        last=last,
        growth=growth,
        compression=compression,
    )


def count(channels: ChannelSelection) -> int:
    """How many channels are read."""
    return channels if isinstance(channels, int) else len(channels)


def indices(channels: ChannelSelection) -> tuple[int, ...]:
    """Which channels are read."""
    return tuple(range(channels)) if isinstance(channels, int) else channels


@functools.cache
def _adapters(family: str) -> dict[str, TypeAdapter[Any]]:
    """A validator for each field of a family."""
    hints = get_type_hints(FAMILIES[family], include_extras=True)
    return {name: TypeAdapter(hints[name]) for name in FAMILIES[family]._names()}
