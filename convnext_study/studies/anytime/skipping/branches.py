"""A whole branch of residual blocks on the rows that matter, without a map between its layers.

Inside a branch the same positions are computed in every layer, and a 3x3 convolution reads no
further than one position from them. So between the layers only computed positions and the ring
around them are kept, as rows of a matrix. Elsewhere a convolution gives its shift and nothing else,
and a block is two passes over the map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convnext_study.studies.anytime.masks import MaskedConv2d, ResizedMask
from convnext_study.studies.anytime.skipping import indices
from convnext_study.studies.anytime.skipping.indices import Geometry, as_matrix, size_of
from convnext_study.studies.anytime.skipping.methods import MethodSkipper, Table, as_maps

_CONV = Geometry(kernel=3, stride=1, padding=1, dilation=1)
UNMEASURED = 0.3  # share of positions up to which rows are used where nothing was measured


class Rows(NamedTuple):
    """The rows of a branch: computed positions first, then the ring around them."""

    of_map: Tensor  # the map's rows that they are
    computed: int  # how many are computed
    windows: Tensor  # what each computed one reads, tap by tap; one past the last row for none
    around: Tensor  # what each of the ring is filled from, by offset; ``computed`` for none


def rows_of(mask: ResizedMask) -> Rows:
    """Those of a mask, made once."""

    def make() -> Rows:
        computed, ring = indices.positions(mask), indices.border(mask, 1)
        reads = indices.window_reads(mask, size_of(mask.active), _CONV)
        of_map = torch.cat([computed, ring.rows])
        place = computed.new_full((mask.active.numel(),), len(of_map))
        place[of_map] = torch.arange(len(of_map), device=of_map.device)
        windows, around = place[reads.rows], place[ring.around.rows]
        windows[reads.outside] = len(of_map)
        around[ring.around.outside] = len(of_map)
        return Rows(of_map, len(computed), windows, around.clamp(max=len(computed)))

    return mask.derive("rows", make)


class SkippingBranch(nn.Sequential):
    """timm's basic blocks, BatchNorms folded, whose convolutions obey one mask; names stay."""

    def __init__(self, blocks: nn.Sequential, table: Table | str) -> None:
        super().__init__()
        for name, block in blocks.named_children():
            self.add_module(name, block)
        self.table = table
        self.segment = _convs(self)[0][0].segment

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        mask = self.segment.at(size_of(x))
        if mask is None or mask.share in (0, 1) or not self._by_rows(x, mask):
            return self.by_layers(x)
        return self.by_rows(x, mask)

    def by_layers(self, x: Tensor) -> Tensor:
        """Each convolution by itself."""
        for block in self:
            x = block(x)
        return x

    def by_rows(self, x: Tensor, mask: ResizedMask) -> Tensor:
        """All blocks on the rows that matter."""
        rows, dense = rows_of(mask), as_matrix(x)
        kept = dense.new_zeros(len(rows.of_map) + 1, dense.shape[1])
        torch.index_select(dense, 0, rows.of_map, out=kept[:-1])
        for index, (first, second) in enumerate(_convs(self)):
            hidden = _convolved(first, kept, rows).relu_()
            kept = _convolved(second, hidden, rows).add_(kept).relu_()
            assert second.shift is not None  # noqa: S101  _is_plain() checks
            dense = (dense + second.shift if index == 0 else dense.add_(second.shift)).relu_()
        return as_maps(dense.index_copy_(0, rows.of_map, kept[:-1]), mask)

    def key(self, x: Tensor) -> str:
        """What decides how fast it is, for a table."""
        n, c, h, w = x.shape
        return f"branch of {len(self)} with {c} on {n}x{h}x{w}"

    def _by_rows(self, x: Tensor, mask: ResizedMask) -> bool:
        if torch.is_grad_enabled() or isinstance(self.table, str) or indices.is_small(mask):
            return False
        measured = self.table.get(self.key(x))
        if measured is None:
            return mask.share <= UNMEASURED
        return measured["rows"].at(mask.share) < measured["layers"].at(mask.share)


def use_rows(net: nn.Module, table: Table | str) -> None:
    """Put a `SkippingBranch` in the place of every branch that can be one.

    Convolutions have their `MethodSkipper` before.
    """
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Sequential) and _can_use_rows(child):
                setattr(module, name, SkippingBranch(child, table))


def _convs(blocks: nn.Sequential) -> list[tuple[MaskedConv2d, MaskedConv2d]]:
    """Both convolutions of each basic block."""
    return [(block.conv1, block.conv2) for block in blocks]  # type: ignore[misc]


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
    same = conv.groups == 1 and conv.in_channels == conv.out_channels
    return same and isinstance(conv.skipper, MethodSkipper) and conv.skipper.radius == 1


def _convolved(conv: MaskedConv2d, kept: Tensor, rows: Rows) -> Tensor:
    """A convolution with its fill and shift: rows to rows, the last of both 0."""
    assert isinstance(conv.skipper, MethodSkipper)  # noqa: S101  _is_plain() checks
    assert conv.shift is not None  # noqa: S101
    fill = conv.skipper.taps
    out = kept.new_empty(kept.shape)
    windows = kept.index_select(0, rows.windows).view(rows.computed, -1)
    taps = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    torch.mm(windows, taps, out=out[: rows.computed])
    if conv.bias is not None:
        out[: rows.computed] += conv.bias
    out[rows.computed :] = 0  # what is read for none
    values = out.index_select(0, rows.around).view(len(fill), -1)
    out[rows.computed : -1] = (fill @ values).view(-1, out.shape[1])
    out[:-1] += conv.shift
    return out
