"""Register our networks with timm when timm is imported, and not before (no torch here)."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from convnext_study.imports import resolve, studies

if TYPE_CHECKING:
    from importlib.abc import Loader

    from convnext_study.models.registry import ModelEntry

# timm fills its registry in timm.models, which any import of timm also imports. Waiting for it
# rather than for timm itself also works while timm is half imported.
_AWAITED = "timm.models"


class _Finder:
    """Finds timm.models by the other finders, with a loader that registers our networks."""

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
    """Wraps another loader, and registers our networks after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        _register()


def all_models() -> dict[str, ModelEntry]:
    """The networks of the road maps and of all studies, by their names in timm."""
    models: dict[str, ModelEntry] = dict(resolve("convnext_study.models.registry:MODELS"))
    for study in studies().values():
        if study.models is not None:
            models |= study.load(study.models)
    return models


def _register() -> None:
    try:
        from convnext_study.models.registry import register_models

        register_models(all_models())
    except Exception as error:  # an import of timm must not fail because of us
        warnings.warn(f"timm will not find the networks of convnext_study: {error}", stacklevel=2)


def install() -> None:
    """Register `all_models` as soon as timm is imported."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    # Another thread may have found timm.models just before this, and be about to import it.
    _wait_for_its_import()
    if _AWAITED in sys.modules and finder in sys.meta_path:
        sys.meta_path.remove(finder)
        _register()


def _wait_for_its_import() -> None:
    """Wait for a thread that is importing timm.models, if there is one."""
    bootstrap: Any = getattr(importlib, "_bootstrap", None)
    if wait := getattr(bootstrap, "_lock_unlock_module", None):
        wait(_AWAITED)
