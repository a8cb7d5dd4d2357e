"""timm without what its import takes two thirds of: ``from ...models.lean_timm import timm``.

``import timm`` alone takes 2.1 s of a core after torch's 1.5: 1.1 are torch's compiler, which one
function of torchvision's and one decorator in timm wait to use, and 0.4 are wandb, if it is there.
All of it is imported once it is used, and nothing of timm behaves otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo.utils"


class _Later(ModuleType):
    """Stands for a module until something of it is used, then it is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks through all modules asks for files and paths
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _postponed() -> Iterator[None]:
    """In this block the compiler and wandb can be imported, and are not."""
    compiler: Any = _Later(_COMPILER)
    compiler.is_compile_supported = _is_compile_supported  # which torchvision imports by its name
    waiting: list[ModuleType] = [compiler] if "torch._dynamo" not in sys.modules else []
    if "wandb" not in sys.modules and find_spec("wandb") is not None:
        waiting.append(_Later("wandb"))
    disable = torch.compiler.disable
    torch.compiler.disable = functools.partial(_disable, disable)
    for module in waiting:
        sys.modules[module.__name__] = module
    try:
        yield
    finally:
        torch.compiler.disable = disable
        for module in waiting:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(_COMPILER).is_compile_supported(device)


def _disable(disable: Callable[..., Any], function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """torch's decorator, which is put on a function once that is called."""
    if not callable(function) or isinstance(function, type):
        return disable(function, *args, **kwargs)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return disable(function, *args, **kwargs)(*given, **named)

    return call


with _postponed():
    import timm

__all__ = ["timm"]
