"""Residual blocks, and the stages they make up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from convnext_study.layers import DropPath, sequence
from convnext_study.plan import BlockPlan, StagePlan
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
            return _checkpointed(self.blocks, x)
        return self.blocks(x)  # type: ignore[no-any-return]


@unscripted
def _checkpointed(blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The blocks' output; the backward pass runs each again instead of keeping its activations."""
    for block in blocks:
        if torch.compiler.is_compiling():  # compiled code writes statistics once by itself
            x = checkpoint(block, x, use_reentrant=False)
        else:
            contexts = partial(_contexts, block)
            x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return x


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Of the forward pass, and of running it again."""
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    """Keeps BatchNorm from counting a batch twice when the block is run again."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches
