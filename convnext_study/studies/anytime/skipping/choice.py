"""Which method computes a convolution, by what each was measured to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.skipping.indices import is_small, tile_share
from convnext_study.studies.anytime.skipping.methods import METHODS, Plan, can_use, nothing

# Where nothing was measured: the share of positions, or of tiles, up to which it is used.
UNMEASURED = {"positions": 0.5, "tiles": 0.4}


@dataclass(frozen=True)
class Line:
    """Milliseconds of a method: ``fixed + per_share * share``.

    The share is that of computed positions, for tiles that of tiles.
    """

    fixed: float
    per_share: float

    def at(self, share: float) -> float:
        """Milliseconds at a share from 0 to 1."""
        return self.fixed + self.per_share * share


@dataclass(frozen=True)
class Table:
    """What each method costs in each kind of layer, on the machine where it was measured.

    Keys are those of `layer_key`; a layer that is missing is decided by `UNMEASURED`.
    """

    lines: Mapping[str, Mapping[str, Line]] = field(default_factory=dict)

    def best(self, key: str, conv: MaskedConv2d, mask: SizedMask) -> str:
        """The method that should take the least time in a layer of this `layer_key`."""
        lines = self.lines.get(key)
        if lines is None:
            return _unmeasured(conv, mask)
        shares = dict.fromkeys(lines, mask.share)
        if "tiles" in lines:
            shares["tiles"] = tile_share(mask)
        return min(lines, key=lambda name: lines[name].at(shares[name]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: milliseconds ``[fixed, per_share]`` of each layer and method."""
        return {
            key: {name: [line.fixed, line.per_share] for name, line in lines.items()}
            for key, lines in self.lines.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Table:
        """The inverse of ``to_dict``."""
        return cls(
            {
                key: {name: Line(*line) for name, line in lines.items()}
                for key, lines in values.items()
            }
        )


class Skipper(nn.Module):
    """Computes one convolution by the method that is best for the mask at hand.

    Args:
        conv: which one; its fill is read now.
        table: what to choose by; a name of `METHODS` always takes that one, where it can.
    """

    def __init__(self, conv: MaskedConv2d, table: Table | str) -> None:
        super().__init__()
        self.table = table
        self.plan = Plan.of(conv)
        self._keys: dict[torch.Size, str] = {}

    def forward(self, conv: MaskedConv2d, x: Tensor, mask: SizedMask) -> Tensor:
        """The convolution's output, equal to the masked dense one but for rounding."""
        if self.plan is None:
            return conv.dense_form(x, mask)
        if mask.share == 0:
            return nothing(conv, mask)
        return METHODS[self._method(conv, x, mask)](conv, x, mask, self.plan)

    def _method(self, conv: MaskedConv2d, x: Tensor, mask: SizedMask) -> str:
        if mask.share == 1:
            return "whole"
        if isinstance(self.table, str):
            name = self.table
        elif is_small(mask):
            return "whole"
        else:
            if x.shape not in self._keys:
                self._keys[x.shape] = layer_key(conv, x)
            name = self.table.best(self._keys[x.shape], conv, mask)
        return name if can_use(name, conv) else "whole"


def layer_key(conv: MaskedConv2d, x: Tensor) -> str:
    """What decides how fast a layer is: kernel, stride, groups, channels, batch and map."""
    n, _, h, w = x.shape
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    layer = f"{kernel}x{kernel}/{stride} g{conv.groups} {conv.in_channels}-{conv.out_channels}"
    return f"{layer} on {n}x{h}x{w}"


def _unmeasured(conv: MaskedConv2d, mask: SizedMask) -> str:
    if conv.kernel_size == (1, 1):
        return "positions" if mask.share <= UNMEASURED["positions"] else "whole"
    return "tiles" if tile_share(mask) <= UNMEASURED["tiles"] else "whole"
