"""A VGG as data (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.pruning.spec_fields import Fields

POOL = "M"  # in a VGG's widths: 2x2 max-pooling
HEADS = ("linear", "512", "4096", "4096bn")


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
