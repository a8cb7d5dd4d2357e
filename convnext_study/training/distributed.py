"""What the processes of one run say to each other. With one process, nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from convnext_study.errors import Busy, RunFailed, UserError

T = TypeVar("T")


def several() -> bool:
    """Whether this process shares its run with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_any(flag: bool) -> bool:
    """Whether the flag is set in any process, so that all act alike."""
    if not several():
        return flag
    votes = torch.tensor(float(flag), device=_device())
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes > 0)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of a tensor over the processes, in place."""
    if several():
        dist.all_reduce(values, dist.ReduceOp.SUM)
    return values


def all_gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """The first process's value, in every process."""
    if not several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, in place."""
    if several():
        for tensor in tensors:
            values = tensor.contiguous()
            dist.broadcast(values, src=0)
            if values is not tensor:
                tensor.copy_(values)


def together(act: Callable[[], T]) -> T:
    """Do what every process does, and raise in all of them what goes wrong in any.

    So none waits for one that has left. A process's own error is raised as it is; of another's
    its kind and its words.
    """
    try:
        value = act()
    except Exception as error:
        kind = next((kind for kind in (UserError, Busy) if isinstance(error, kind)), RunFailed)
        all_gather((kind, str(error) or type(error).__name__))
        raise
    for rank, trouble in enumerate(all_gather(None)):
        if trouble is not None:
            kind, text = trouble
            raise kind(f"process {rank}: {text}")
    return value


def barrier() -> None:
    """Go on when every process has come here."""
    if several():
        dist.barrier()


def _device() -> torch.device:
    # NCCL moves nothing that lies in the CPU's memory.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
