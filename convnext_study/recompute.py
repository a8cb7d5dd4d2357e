"""Gradient checkpointing: blocks are run again in the backward pass, and BatchNorm counts once.

A BatchNorm that is run again would move its running statistics a second time by the same batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# What moves running statistics: BatchNorm's factor, and how many batches it has counted.
Moves = tuple[float | None, torch.Tensor | None]
_KEPT = "_kept_while_recomputed"


@torch.jit.ignore  # type: ignore[untyped-decorator]
def checkpointed(blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The blocks' output; the backward pass runs each again instead of keeping its activations."""
    for block in blocks:
        if torch.compiler.is_compiling():  # compiled code writes statistics once by itself
            x = checkpoint(block, x, use_reentrant=False)
        else:
            contexts = partial(_contexts, block)
            x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return x


def count_once(model: nn.Module) -> int:
    """Let a network that checkpoints in its own way, as timm's do, count each batch once.

    Hooks on its norms notice that they are run within a backward pass. Returns how many norms
    there are. Not for networks that are compiled, whose compiled code counts once by itself.
    """
    norms = _counting(model)
    for norm in norms:
        norm.register_forward_pre_hook(_before)
        # Recomputation ends by an exception in the last module whose activations are needed.
        norm.register_forward_hook(_after, always_call=True)
    return len(norms)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Of the forward pass, and of running it again."""
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    kept = [(norm, _stop(norm)) for norm in _counting(block)]
    try:
        yield
    finally:
        for norm, moves in kept:
            _go_on(norm, moves)


def _counting(model: nn.Module) -> list[Any]:
    """The norms with running statistics: BatchNorm in all its forms, SyncBatchNorm, EvoNorm."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_var", None), torch.Tensor)
        and hasattr(module, "momentum")
    ]


def _stop(norm: Any) -> Moves:
    """Make a norm's next batches leave no trace. Returns what `_go_on` needs."""
    batches = getattr(norm, "num_batches_tracked", None)
    moves = (norm.momentum, batches)
    norm.momentum = 0.0
    if batches is not None:
        norm.num_batches_tracked = batches.clone()  # SyncBatchNorm insists on having one
    return moves


def _go_on(norm: Any, moves: Moves) -> None:
    norm.momentum, batches = moves
    if batches is not None:
        norm.num_batches_tracked = batches


def _before(norm: Any, _: Any) -> None:
    # Outside of a backward pass there is no task of autograd's.
    if torch._C._current_graph_task_id() != -1 and _KEPT not in norm.__dict__:
        norm.__dict__[_KEPT] = _stop(norm)


def _after(norm: Any, *_: Any) -> None:
    if _KEPT in norm.__dict__:
        _go_on(norm, norm.__dict__.pop(_KEPT))
