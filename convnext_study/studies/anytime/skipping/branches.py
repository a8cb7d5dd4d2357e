"""A whole branch of residual blocks on the rows that matter, without a map between its layers.

Inside a branch the same positions are computed in every layer, and a 3x3 convolution reads no
further than one position from them. So between the layers only computed positions and the ring
around them are kept, as rows of a matrix. Elsewhere a convolution gives its shift and nothing else,
and a block is two passes over the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.skipping import indices
from convnext_study.studies.anytime.skipping.choice import Skipper, Table
from convnext_study.studies.anytime.skipping.indices import Geometry
from convnext_study.studies.anytime.skipping.methods import Plan, as_matrix

_CONV = Geometry(kernel=3, stride=1, padding=1, dilation=1)
UNMEASURED = 0.3  # share of positions up to which rows are used where nothing was measured


@dataclass(frozen=True)
class Rows:
    """The rows of a branch: computed positions first, then the ring around them.

    Args:
        of_map: the map's rows that they are.
        computed: how many are computed.
        windows: what each computed one reads, tap by tap; one past the last row for none.
        around: what each of the ring is filled from, offset by offset; ``computed`` for none.
    """

    of_map: Tensor
    computed: int
    windows: Tensor
    around: Tensor

    @classmethod
    def of(cls, mask: SizedMask) -> Rows:
        """Those of a mask, made once."""
        return mask.derive("rows", lambda: cls._of(mask))

    @classmethod
    def _of(cls, mask: SizedMask) -> Rows:
        computed, ring = indices.positions(mask), indices.border(mask, 1)
        size = (mask.active.shape[-2], mask.active.shape[-1])
        reads = indices.window_reads(mask, size, _CONV)
        of_map = torch.cat([computed, ring.rows])
        place = computed.new_full((mask.active.numel(),), len(of_map))
        place[of_map] = torch.arange(len(of_map), device=of_map.device)
        windows, around = place[reads.rows], place[ring.around.rows]
        windows[reads.outside] = len(of_map)
        around[ring.around.outside] = len(of_map)
        return cls(of_map, len(computed), windows, around.clamp(max=len(computed)))


class SkippingBranch(nn.Sequential):
    """timm's basic blocks, BatchNorms folded; names stay.

    Args:
        blocks: the branch. Its convolutions obey one mask.
        table: what to choose by, or a name of a method for all convolutions.
    """

    def __init__(self, blocks: nn.Sequential, table: Table | str) -> None:
        super().__init__()
        for name, block in blocks.named_children():
            self.add_module(name, block)
        self.table = table
        self.segment = _convs(self)[0][0].segment

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        mask = self.segment.at((x.shape[-2], x.shape[-1]))
        if mask is None or mask.share in (0, 1) or not self._by_rows(x, mask):
            return self.by_layers(x)
        return self.by_rows(x, mask)

    def by_layers(self, x: Tensor) -> Tensor:
        """Each convolution by itself."""
        for block in self:
            x = block(x)
        return x

    def by_rows(self, x: Tensor, mask: SizedMask) -> Tensor:
        """All blocks on the rows that matter."""
        rows = Rows.of(mask)
        dense = as_matrix(x)
        kept = dense.new_zeros(len(rows.of_map) + 1, dense.shape[1])
        torch.index_select(dense, 0, rows.of_map, out=kept[:-1])
        for index, (first, second) in enumerate(_convs(self)):
            inner = _convolved(first, kept, rows).relu_()
            inner = _convolved(second, inner, rows)
            kept = inner.add_(kept).relu_()
            shift = _shift(second)
            dense = (dense + shift if index == 0 else dense.add_(shift)).relu_()
        dense.index_copy_(0, rows.of_map, kept[:-1])
        n, c, h, w = x.shape
        return dense.view(n, h, w, c).permute(0, 3, 1, 2)

    def key(self, x: Tensor) -> str:
        """What decides how fast it is, for a table."""
        n, c, h, w = x.shape
        return f"branch of {len(self)} with {c} on {n}x{h}x{w}"

    def _by_rows(self, x: Tensor, mask: SizedMask) -> bool:
        if torch.is_grad_enabled() or isinstance(self.table, str) or indices.is_small(mask):
            return False
        lines = self.table.lines.get(self.key(x))
        if lines is None:
            return mask.share <= UNMEASURED
        return lines["rows"].at(mask.share) < lines["layers"].at(mask.share)


def use_rows(net: nn.Module, table: Table | str) -> int:
    """Put a `SkippingBranch` in the place of every branch that can be one; returns how many.

    Convolutions have their `Skipper` before.
    """
    found = 0
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Sequential) and _can_use_rows(child):
                setattr(module, name, SkippingBranch(child, table))
                found += 1
    return found


def _convs(blocks: nn.Sequential) -> list[tuple[MaskedConv2d, MaskedConv2d]]:
    """Both convolutions of each basic block."""
    return [(block.conv1, block.conv2) for block in blocks]  # type: ignore[misc]


def _shift(conv: MaskedConv2d) -> Tensor:
    assert conv.shift is not None  # noqa: S101  _is_plain() asked
    return conv.shift


def _can_use_rows(module: nn.Sequential) -> bool:
    """Basic blocks of timm's of one width, whose fills reach no further than the ring."""
    from timm.models.resnet import BasicBlock

    return (
        type(module) is nn.Sequential
        and len(module) > 0
        and all(
            isinstance(block, BasicBlock)
            and block.downsample is block.se is block.drop_path is None
            and _is_plain(block.conv1)
            and _is_plain(block.conv2)
            for block in module
        )
    )


def _is_plain(conv: Any) -> bool:
    if not isinstance(conv, MaskedConv2d) or Geometry.of(conv) != _CONV or conv.shift is None:
        return False
    return conv.groups == 1 and conv.in_channels == conv.out_channels and _plan(conv).radius == 1


def _plan(conv: MaskedConv2d) -> Plan:
    skipper = conv.skipper
    assert isinstance(skipper, Skipper) and skipper.plan is not None  # noqa: S101  _is_plain()
    return skipper.plan


def _convolved(conv: MaskedConv2d, kept: Tensor, rows: Rows) -> Tensor:
    """A convolution with its fill and shift: rows to rows, the last of both 0."""
    taps_of_fill = _plan(conv).taps
    out = kept.new_empty(kept.shape)
    windows = kept.index_select(0, rows.windows).view(rows.computed, -1)
    taps = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    torch.mm(windows, taps, out=out[: rows.computed])
    if conv.bias is not None:
        out[: rows.computed] += conv.bias
    out[rows.computed :] = 0  # what is read for none
    values = out.index_select(0, rows.around).view(len(taps_of_fill), -1)
    out[rows.computed : -1] = (taps_of_fill @ values).view(-1, out.shape[1])
    out[:-1] += _shift(conv)
    return out
