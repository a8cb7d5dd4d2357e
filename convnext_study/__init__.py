"""The road from ResNet-50 to ConvNeXt, every step a network to build, count, train and compare.

Importing this package imports neither torch nor timm. If timm is imported too, before or after,
every network of the road maps is registered there: ``roadmap_t_patchify_stem``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from convnext_study.models import timm_hook

if TYPE_CHECKING:
    from convnext_study.api import (
        Results,
        Road,
        compare,
        figure,
        load_results,
        roadmap,
        run_roadmap,
        train,
    )
    from convnext_study.models.roadmap_net import RoadmapNet
    from convnext_study.roadmap import ROADMAPS, Step, get_roadmap
    from convnext_study.roadmap.spec import NetSpec

    __version__: str

__all__ = [
    "ROADMAPS",
    "NetSpec",
    "Results",
    "Road",
    "RoadmapNet",
    "Step",
    "__version__",
    "compare",
    "figure",
    "get_roadmap",
    "load_results",
    "roadmap",
    "run_roadmap",
    "train",
]

_HOMES = {
    "NetSpec": "convnext_study.roadmap.spec",
    "ROADMAPS": "convnext_study.roadmap",
    "Step": "convnext_study.roadmap",
    "get_roadmap": "convnext_study.roadmap",
    "RoadmapNet": "convnext_study.models.roadmap_net",
    **dict.fromkeys(
        ("Results", "Road", "compare", "figure", "load_results", "run_roadmap", "train"),
        "convnext_study.api",
    ),
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


class _Roadmap(ModuleType):
    """The package `convnext_study.roadmap`, callable as the function of that name."""

    def __call__(self, regime: str = "nano", *steps: Step) -> Road:
        from convnext_study.api import roadmap

        return roadmap(regime, *steps)


timm_hook.install()
importlib.import_module(f"{__name__}.roadmap").__class__ = _Roadmap
