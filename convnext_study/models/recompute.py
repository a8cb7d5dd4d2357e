"""Gradient checkpointing: blocks are recomputed in the backward pass, and BatchNorm counts once.

A recomputed BatchNorm would otherwise update its running statistics twice with the same batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# The state that updates running statistics: BatchNorm's momentum and its number of batches.
Moves = tuple[float | None, torch.Tensor | None]
_KEPT = "_kept_while_recomputed"


@torch.jit.ignore  # type: ignore[untyped-decorator]
def checkpointed(blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The blocks' output; the backward pass recomputes activations instead of storing them."""
    for block in blocks:
        if torch.compiler.is_compiling():  # compiled code updates statistics once anyway
            x = checkpoint(block, x, use_reentrant=False)
        else:
            contexts = partial(_contexts, block)
            x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
    return x


def count_once(model: nn.Module) -> int:
    """Make a network with its own checkpointing, such as timm's, count each batch once.

    Hooks on its norms detect that they run within a backward pass. Returns the number of norms.
    Not for compiled networks, whose code updates statistics once anyway.
    """
    norms = _counting(model)
    for norm in norms:
        norm.register_forward_pre_hook(_before)
        # Recomputation ends with an exception in the last module whose activations are needed.
        norm.register_forward_hook(_after, always_call=True)
    return len(norms)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """The contexts of the forward pass and of its recomputation."""
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    stopped = [(norm, _stop(norm)) for norm in _counting(block)]
    try:
        yield
    finally:
        for norm, moves in stopped:
            _go_on(norm, moves)


def _counting(model: nn.Module) -> list[Any]:
    """The norms with running statistics: all forms of BatchNorm, SyncBatchNorm, EvoNorm."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_var", None), torch.Tensor)
        and hasattr(module, "momentum")
    ]


def _stop(norm: Any) -> Moves:
    """Stop a norm's updates of statistics. Returns the state for `_go_on`."""
    batches = getattr(norm, "num_batches_tracked", None)
    moves = (norm.momentum, batches)
    norm.momentum = 0.0
    if batches is not None:
        norm.num_batches_tracked = batches.clone()  # SyncBatchNorm requires one
    return moves


def _go_on(norm: Any, moves: Moves) -> None:
    norm.momentum, batches = moves
    if batches is not None:
        norm.num_batches_tracked = batches


def _before(norm: Any, _: Any) -> None:
    # Outside of a backward pass autograd has no task.
    if torch._C._current_graph_task_id() != -1 and _KEPT not in norm.__dict__:
        norm.__dict__[_KEPT] = _stop(norm)


def _after(norm: Any, *_: Any) -> None:
    if _KEPT in norm.__dict__:
        _go_on(norm, norm.__dict__.pop(_KEPT))
