"""The road from ResNet-50 to ConvNeXt, every step a network to build, count, train and compare.

Importing this package imports neither torch nor timm. Where timm is imported too, before or after,
it knows every network of the road maps by its name: ``roadmap_t_patchify_stem``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from convnext_study.models import timm_hook

if TYPE_CHECKING:
    from convnext_study.models.roadmap_net import RoadmapNet
    from convnext_study.roadmap import ROADMAPS, get_roadmap
    from convnext_study.roadmap.spec import NetSpec

    __version__: str

__all__ = ["ROADMAPS", "NetSpec", "RoadmapNet", "__version__", "get_roadmap"]

_HOMES = {
    "NetSpec": "convnext_study.roadmap.spec",
    "ROADMAPS": "convnext_study.roadmap",
    "get_roadmap": "convnext_study.roadmap",
    "RoadmapNet": "convnext_study.models.roadmap_net",
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


timm_hook.install()
