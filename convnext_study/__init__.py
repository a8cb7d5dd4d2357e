"""The road from ResNet-50 to ConvNeXt, every step a network to build, count, train and compare.

Importing this package imports neither torch nor timm. Where timm is imported too, before or after,
it knows every network of the road maps by its name: ``roadmap_t_patchify_stem``.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader

    from convnext_study.net import RoadmapNet
    from convnext_study.roadmap import ROADMAPS, get_roadmap
    from convnext_study.spec import NetSpec

    __version__: str

__all__ = ["ROADMAPS", "NetSpec", "RoadmapNet", "__version__", "get_roadmap"]

_HOMES = {
    "NetSpec": "convnext_study.spec",
    "ROADMAPS": "convnext_study.roadmap",
    "get_roadmap": "convnext_study.roadmap",
    "RoadmapNet": "convnext_study.net",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("convnext-study")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# timm fills its registry in timm.models. Whoever imports any part of timm imports that too, and
# waiting for it, not for timm itself, also works while timm is half imported.
_AWAITED = "timm.models"


class _Finder:
    """Finds timm.models as the other finders do, with a loader that registers our networks."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _AWAITED:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Another loader, and what is to be done after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]
        _register()


# The road maps' networks, and those of every study with a room of its own.
_ZOOS = ("convnext_study.zoo", "convnext_study.multipath.zoo")


def _register() -> None:
    try:
        for name in _ZOOS:
            importlib.import_module(name).register()
    except Exception as error:  # whoever imports timm must get timm
        warnings.warn(f"timm will not know the networks of convnext_study: {error}", stacklevel=2)


if _AWAITED in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _Finder())
