"""A GPU that is not there: tensors that compute on the CPU and refuse to meet its tensors.

What a GPU would refuse, a tensor of the CPU among its own, is refused here too, so that it is found
where there is no GPU. A single number may come from the CPU, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from convnext_study.studies.anytime.masks import _bands

DEVICE, CPU = torch.device("cuda:0"), torch.device("cpu")


class ElsewhereTensor(Tensor):
    """A tensor of the CPU that says it is on `DEVICE`."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls: Any, inner: Tensor) -> Any:
        """One of the same shape, strides and type."""
        made: Any = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.on_cpu = inner
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own note of it is not a method's
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute on the CPU; raises RuntimeError for tensors of two devices."""
        return _compute(func, args, kwargs or {})


class _Creating(TorchDispatchMode):
    """Sees tensors that are made on the device out of nothing."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


@contextmanager
def other_device() -> Iterator[torch.device]:
    """The device, on which tensors can be made in the block."""
    torch._C._ensureCUDADeviceGuardSet()
    started, torch.cuda._lazy_init = torch.cuda._lazy_init, lambda: None
    try:
        with _Creating():
            yield DEVICE
    finally:
        torch.cuda._lazy_init = started
        _bands.cache_clear()  # a real GPU would get what is kept of this one


def elsewhere(inner: Tensor) -> Any:
    """A tensor of the CPU, moved."""
    return ElsewhereTensor(inner)


def back(there: Tensor) -> Tensor:
    """A tensor of the device, on the CPU."""
    assert isinstance(there, ElsewhereTensor)
    found: Tensor = there.on_cpu
    return found


def to_other(net: nn.Module) -> Any:
    """Move parameters and buffers, in place, and nothing else, as ``net.to(device)`` does."""
    for module in net.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                moved = ElsewhereTensor(weight.detach())
                module._parameters[name] = nn.Parameter(moved, requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = ElsewhereTensor(value)
    return net


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    ours = [one for one in given if isinstance(one, ElsewhereTensor)]
    if ours and any(one.ndim for one in given if not isinstance(one, ElsewhereTensor)):
        raise RuntimeError(f"{func}: expected all tensors on {DEVICE}, and one is on the CPU")
    wanted = kwargs.get("device")
    there = bool(ours) if wanted is None else torch.device(wanted) == DEVICE
    if wanted is not None:
        kwargs = {**kwargs, "device": CPU}
    inner_args, inner = tree_map_only(ElsewhereTensor, lambda one: one.on_cpu, (args, kwargs))
    found = func(*inner_args, **inner)
    if not there:
        return found
    known: dict[int, Any] = {
        id(one.on_cpu): one for one in ours
    }  # what is computed in place stays itself
    return tree_map_only(
        Tensor, lambda one: known[id(one)] if id(one) in known else ElsewhereTensor(one), found
    )
