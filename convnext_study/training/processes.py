"""What the processes of one run say to each other. With one process, nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process, so that all act alike."""
    if not _several():
        return flag
    votes = torch.tensor(float(flag), device=_device())
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes > 0)


def mean_of(value: Tensor) -> Tensor:
    """The mean of a scalar over the processes."""
    if not _several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total, dist.ReduceOp.SUM)
    return total / dist.get_world_size()


def sum_of(count: int) -> int:
    """The sum of a count over the processes."""
    if not _several():
        return count
    total = torch.tensor(float(count), dtype=torch.float64, device=_device())
    dist.all_reduce(total, dist.ReduceOp.SUM)
    return round(float(total))


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks."""
    if not _several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if _several():
        dist.barrier()


def _device() -> torch.device:
    # NCCL moves nothing that lies in the CPU's memory.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
