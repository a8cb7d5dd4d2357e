"""Communication between the processes of a run; with one process, there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from convnext_study.errors import Busy, RunFailed, UserError

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether the run has several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_any(flag: bool) -> bool:
    """Whether the flag is set in any process; the same in all of them."""
    if not is_distributed():
        return flag
    votes = torch.tensor(float(flag), device=_device())
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes > 0)


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if is_distributed():
        dist.all_reduce(values, dist.ReduceOp.SUM)
    return values


def all_gather(value: Any) -> list[Any]:
    """The values of all processes, in order of rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """The first process's value, in every process."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Copy the first process's values to all others, in place."""
    if is_distributed():
        for tensor in tensors:
            values = tensor.contiguous()
            dist.broadcast(values, src=0)
            if values is not tensor:
                tensor.copy_(values)


def all_or_raise(act: Callable[[], T]) -> T:
    """Call ``act``, as every process does, and raise in all processes if it raises in any.

    So none waits for one that has left. A process raises its own error unchanged; for another's,
    one of the same kind with its message.
    """
    try:
        value = act()
    except Exception as error:
        kind = next((kind for kind in (UserError, Busy) if isinstance(error, kind)), RunFailed)
        all_gather((kind, str(error) or type(error).__name__))
        raise
    for rank, failed in enumerate(all_gather(None)):
        if failed is not None:
            kind, text = failed
            raise kind(f"process {rank}: {text}")
    return value


def barrier() -> None:
    """Wait until every process has come here."""
    if is_distributed():
        dist.barrier()


def _device() -> torch.device:
    # NCCL cannot send tensors in the CPU's memory.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
