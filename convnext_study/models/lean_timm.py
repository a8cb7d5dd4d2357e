"""timm without two thirds of its import time: ``from ...models.lean_timm import timm``.

``import timm`` alone takes 2.1 s of a core after torch's 1.5: 1.1 are torch's compiler, which one
function of torchvision and one decorator in timm need, and 0.4 are wandb, if it is installed. Both
are imported when they are first used, and timm behaves the same.
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


class _LazyModule(ModuleType):
    """Stands in for a module, and imports it when one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # code that inspects all modules reads __file__ and __path__
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _lazy_imports() -> Iterator[None]:
    """In this block, importing the compiler or wandb gives a placeholder."""
    compiler: Any = _LazyModule(_COMPILER)
    compiler.is_compile_supported = _is_compile_supported  # torchvision imports it by name
    placeholders: list[ModuleType] = [compiler] if "torch._dynamo" not in sys.modules else []
    if "wandb" not in sys.modules and find_spec("wandb") is not None:
        placeholders.append(_LazyModule("wandb"))
    disable = torch.compiler.disable
    torch.compiler.disable = functools.partial(_disable, disable)
    for module in placeholders:
        sys.modules[module.__name__] = module
    try:
        yield
    finally:
        torch.compiler.disable = disable
        for module in placeholders:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def _is_compile_supported(device: Any) -> Any:
    return importlib.import_module(_COMPILER).is_compile_supported(device)


def _disable(disable: Callable[..., Any], function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """torch's decorator, applied to a function when it is called."""
    if not callable(function) or isinstance(function, type):
        return disable(function, *args, **kwargs)

    @functools.wraps(function)
    def call(*call_args: Any, **call_kwargs: Any) -> Any:
        return disable(function, *args, **kwargs)(*call_args, **call_kwargs)

    return call


with _lazy_imports():
    import timm

__all__ = ["timm"]
