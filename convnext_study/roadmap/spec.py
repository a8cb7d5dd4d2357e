"""A network as data: one frozen value with a field per design axis of the paper (no torch here).

The defaults are ResNet-50. Setting fields one after the other leads to ConvNeXt ("A ConvNet for
the 2020s", Liu et al., CVPR 2022, section 2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from convnext_study.errors import UserError, did_you_mean

STAGES = 4

# The values of fields with a few choices, in the paper's order: ResNet's value first.
CHOICES: dict[str, tuple[Any, ...]] = {
    "stem": ("conv", "patchify"),
    "stem_stride": (1, 2, 4),
    "depthwise": (False, True),
    "inverted": (False, True),
    "spatial_first": (False, True),
    "activation": ("relu", "gelu"),
    "activations": (3, 1),
    "norm": ("batch", "layer"),
    "norms": (3, 1),
    "downsampling": ("in_block", "separate"),
    "layout": ("staged", "isotropic"),
    "grn": (False, True),
}


class SpecError(UserError):
    """The description of a network that cannot be built; the message names the field."""


class Spec:
    """Conversion to and from plain values, for frozen dataclasses that describe networks.

    Values are numbers, strings, and tuples of them, which are lists in JSON.
    """

    @classmethod
    def kind(cls) -> str:
        """What it describes, for error messages: ``an anytime network``."""
        return "a network"

    def __post_init__(self) -> None:
        """Convert JSON's lists to tuples, then check the values."""
        self._freeze()
        self.check()

    def check(self) -> None:
        """Raises SpecError, one line that names the field, for an invalid value."""

    def replace(self, **changes: Any) -> Self:
        """The same network with some fields changed. Raises SpecError for an unknown field."""
        values = {name: getattr(self, name) for name in self._names()}
        return type(self).from_dict({**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of all fields, so that a record does not depend on our defaults."""
        return {name: _lists(getattr(self, name)) for name in self._names()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; missing fields keep their defaults."""
        cls.check_names(values)
        return cls(**values)

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """Raises SpecError for an unknown field."""
        for name in names:
            if name not in (known := cls._names()):
                raise SpecError(f"{name}: no such field of {cls.kind()}{did_you_mean(name, known)}")

    def _freeze(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if not isinstance(field.default, str):  # errors show invalid values of these as given
                object.__setattr__(self, field.name, _tuples(getattr(self, field.name)))

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class NetSpec(Spec):
    """The description of a road-map network. Hashable, and unchanged by a round trip to JSON.

    Args:
        depths: blocks in each of the four stages (section 2.2).
        width: channels of stage 1, doubled at every further stage: the inner width of a
            bottleneck, and the outer width of an inverted one.
        stem: ``conv`` is ResNet's 7x7 convolution and pooling, ``patchify`` one convolution
            over patches that do not overlap (section 2.2).
        stem_stride: the stem's reduction of the image: 4 in the paper, less for small images.
        depthwise: the spatial convolution has one group per channel (section 2.3).
        inverted: the block is narrow outside and ``expansion`` times as wide inside (section 2.4).
        spatial_first: the spatial convolution comes first in the block (section 2.5).
        kernel: side of the spatial convolution's kernel, odd (section 2.5).
        activation: ``relu`` or ``gelu`` (section 2.6, as are the fields below).
        activations: activations in a block: 3, or the 1 before its last pointwise convolution.
        norm: ``batch`` or ``layer`` normalisation.
        norms: norms in a block: 3, or the 1 after its spatial convolution.
        downsampling: ``in_block``: a stage's first block strides; ``separate``: a norm and a
            2x2 stride-2 convolution before the stage, and norms after stem and global pooling.
        expansion: ratio of a block's wide side to its narrow side.
        layer_scale: initial value of a learned factor per channel on each branch; ``None``: none.
        layout: ``staged`` halves the map and doubles the width at each stage; ``isotropic`` keeps
            one width and the map of stage 3 throughout, to which the stem reduces the image
            (section 3.3, Table 2). The stages then only determine the number of blocks.
        grn: global response normalisation before the block's last pointwise convolution
            (ConvNeXt V2, Woo et al., 2023).

    Raises:
        SpecError: an invalid value, in one line that names the field.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stem: str = "conv"
    stem_stride: int = 4
    depthwise: bool = False
    inverted: bool = False
    spatial_first: bool = False
    kernel: int = 3
    activation: str = "relu"
    activations: int = 3
    norm: str = "batch"
    norms: int = 3
    downsampling: str = "in_block"
    expansion: int = 4
    layer_scale: float | None = None
    layout: str = "staged"
    grn: bool = False

    def check(self) -> None:
        """Raises SpecError for an invalid value."""
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        _check_depths(self.depths)
        for name in ("width", "kernel", "expansion"):
            check_count(name, getattr(self, name))
        if self.kernel % 2 == 0:
            raise SpecError(f"kernel: {self.kernel} is even; use an odd number, such as 3 or 7")
        scale = self.layer_scale
        if scale is not None and (type(scale) not in (int, float) or not 0 < scale <= 1):
            raise SpecError(f"layer_scale: {scale!r}; use None or a number above 0, at most 1")

    def stage_width(self, stage: int) -> int:
        """The value of ``width`` in that stage (from 0)."""
        return self.width if self.layout == "isotropic" else self.width * 2**stage

    def widths(self) -> tuple[int, ...]:
        """Outer channels of each stage, which are those of its feature map."""
        outer = 1 if self.inverted else self.expansion
        return tuple(self.stage_width(stage) * outer for stage in range(STAGES))

    def stem_reduction(self) -> int:
        """The stem's reduction of the image; if isotropic, as much as up to stage 3."""
        return self.stem_stride * (4 if self.layout == "isotropic" else 1)


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raises SpecError unless the value of that field is one of these."""
    # True == 1 in Python, so the type is compared too.
    if not any(value == choice and type(value) is type(choice) for choice in allowed):
        raise SpecError(f"{name}: {value!r} is unknown; use one of {', '.join(map(repr, allowed))}")


def check_count(name: str, value: Any) -> None:
    """Raises SpecError unless the value of that field is a positive integer."""
    if type(value) is not int or value < 1:
        raise SpecError(f"{name}: {value!r}; use a whole number of at least 1")


def _check_depths(depths: Any) -> None:
    if not isinstance(depths, tuple) or len(depths) != STAGES:
        raise SpecError(f"depths: {depths!r}; use {STAGES} numbers, one for each stage")
    for depth in depths:
        if type(depth) is not int or depth < 1:
            raise SpecError(f"depths: {depths!r}; every stage needs a depth of at least 1")


RESNET50 = NetSpec()
RESNET200 = NetSpec(depths=(3, 24, 36, 3))
# Ours, for 64x64 images on a laptop: shaped like ResNet-50, an eighth as wide, a third as deep. Its
# stages have maps with sides of 16, 8, 4 and 2, so that a 7x7 kernel fits into two of them.
RESNET_NANO = NetSpec(depths=(1, 1, 2, 1), width=8)
