"""Residual blocks, and the stages they make up."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from convnext_study.models.layer_specs import BlockLayers, StageLayers
from convnext_study.models.layers import DropPath, sequence
from convnext_study.models.recompute import checkpointed
from convnext_study.roadmap.spec import NetSpec

Method = TypeVar("Method", bound=Callable[..., Any])
# For what a scripted network does in Python. torch leaves this decorator without types.
jit_ignore: Callable[[Method], Method] = torch.jit.ignore


def drop_path_rates(last: float, count: int) -> list[float]:
    """Stochastic depth of each of ``count`` blocks: linear, from 0 at the first to ``last``.

    Not timm's function of that purpose: its tensors round otherwise.
    """
    return [last * index / max(count - 1, 1) for index in range(count)]


class Block(nn.Module):
    """tail(drop_path(branch(x)) + shortcut(x))"""

    def __init__(self, block: BlockLayers, spec: NetSpec, drop_path_rate: float) -> None:
        super().__init__()
        self.branch = sequence(block.branch, spec)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.shortcut = sequence(block.shortcut, spec)
        self.post_act = sequence(block.post_act, spec)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        return self.post_act(self.drop_path(self.branch(x)) + self.shortcut(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """tail(blocks(downsample(x))), the blocks run again in the backward pass where asked for."""

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        downsample: nn.Module | None = None,
        tail: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)
        self.tail = tail or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.tail(checkpointed(self.blocks, x))  # type: ignore[no-any-return]
        return self.tail(self.blocks(x))  # type: ignore[no-any-return]


def roadmap_stage(stage: StageLayers, spec: NetSpec, rates: Iterator[float]) -> Stage:
    """Blocks of one width, after a downsampling layer where the spec has one.

    ``rates`` give each block its stochastic depth.
    """
    downsample = sequence(stage.downsample, spec)
    return Stage([Block(block, spec, next(rates)) for block in stage.blocks], downsample)
