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
NormState = tuple[float | None, torch.Tensor | None]
_FROZEN = "_kept_while_recomputed"


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
    norms = _norms_with_statistics(model)
    for norm in norms:
        norm.register_forward_pre_hook(_freeze_in_backward)
        # Recomputation ends with an exception in the last module whose activations are needed.
        norm.register_forward_hook(_unfreeze_after, always_call=True)
    return len(norms)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """The contexts of the forward pass and of its recomputation."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    frozen = [(norm, _freeze(norm)) for norm in _norms_with_statistics(block)]
    try:
        yield
    finally:
        for norm, state in frozen:
            _unfreeze(norm, state)


def _norms_with_statistics(model: nn.Module) -> list[Any]:
    """The norms with running statistics: all forms of BatchNorm, SyncBatchNorm, EvoNorm."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_var", None), torch.Tensor)
        and hasattr(module, "momentum")
    ]


def _freeze(norm: Any) -> NormState:
    """Stop a norm's updates of statistics. Returns the state for `_unfreeze`."""
    batches = getattr(norm, "num_batches_tracked", None)
    state = (norm.momentum, batches)
    norm.momentum = 0.0
    if batches is not None:
        norm.num_batches_tracked = batches.clone()  # SyncBatchNorm requires one
    return state


def _unfreeze(norm: Any, state: NormState) -> None:
    norm.momentum, batches = state
    if batches is not None:
        norm.num_batches_tracked = batches


def _freeze_in_backward(norm: Any, _: Any) -> None:
    # Outside of a backward pass autograd has no task.
    if torch._C._current_graph_task_id() != -1 and _FROZEN not in norm.__dict__:
        norm.__dict__[_FROZEN] = _freeze(norm)


def _unfreeze_after(norm: Any, *_: Any) -> None:
    if _FROZEN in norm.__dict__:
        _unfreeze(norm, norm.__dict__.pop(_FROZEN))
