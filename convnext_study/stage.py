"""Residual blocks, and the stages they make up."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from convnext_study.layers import DropPath, sequence
from convnext_study.plan import BlockPlan, StagePlan
from convnext_study.recompute import checkpointed
from convnext_study.spec import NetSpec

Method = TypeVar("Method", bound=Callable[..., Any])
# For what a scripted network does in Python. torch leaves this decorator without types.
unscripted: Callable[[Method], Method] = torch.jit.ignore


class Block(nn.Module):
    """tail(drop_path(branch(x)) + shortcut(x))"""

    def __init__(self, block: BlockPlan, spec: NetSpec, drop_path_rate: float) -> None:
        super().__init__()
        self.branch = sequence(block.branch, spec)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.shortcut = sequence(block.shortcut, spec)
        self.tail = sequence(block.tail, spec)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.drop_path(self.branch(x)) + self.shortcut(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Blocks of one width, after a downsampling layer where the spec has one."""

    def __init__(self, stage: StagePlan, spec: NetSpec, drop_path_rates: list[float]) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = sequence(stage.downsample, spec)
        self.blocks = nn.Sequential(
            *(
                Block(block, spec, rate)
                for block, rate in zip(stage.blocks, drop_path_rates, strict=True)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return checkpointed(self.blocks, x)  # type: ignore[no-any-return]
        return self.blocks(x)  # type: ignore[no-any-return]
