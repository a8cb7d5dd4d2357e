"""The multi-path networks and their baselines as models in timm.

``timm.create_model("multipath_small_se")`` builds one. Keywords may set fields of the network:
``create_model("multipath_small", attention="path", depths=(2, 2, 3, 3))``. Nothing here imports
timm until timm itself is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.models.registry import checkpoint_filter_fn
from convnext_study.studies.multipath.spec import (
    BASIC,
    LARGE,
    LARGE_PATHS,
    SMALL,
    SMALL_EQUAL,
    STAGES,
    MultipathSpec,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__: list[str] = ["BASELINES", "SPECS", "register"]  # timm adds every model to it

RECONSTRUCTION = "Our reconstruction; the paper's layer table is not available to us."
PAPER = (
    "Zhao, Bai, An: Research on Multi-Path Lightweight Convolutional Neural Network, "
    "Computer Engineering and Applications 2023, 59(6), 134-145"
)
_KINDS = {"": "none", "_pathatt": "path", "_se": "se"}
_NETS = {
    "multipath_small": (SMALL, "Paths of depths 1 to 4"),
    "multipath_small_equal": (SMALL_EQUAL, "The control with paths of nearly equal depths"),
    "multipath_large": (LARGE, "Paths of depths 1 to 4, widened in channels"),
    "multipath_large_paths": (LARGE_PATHS, "Widened in paths, of depths 0 to 7"),
}
_ATTENTION = {"none": "", "path": ", attention among the paths", "se": ", squeeze and excitation"}

# A model's name: what it is, and the line that says so.
_MODELS: dict[str, tuple[MultipathSpec, str]] = {
    name + suffix: (spec.replace(attention=kind), what + _ATTENTION[kind])
    for name, (spec, what) in _NETS.items()
    for suffix, kind in _KINDS.items()
} | {"multipath_basic": (BASIC, "The plain network of basic blocks, of the small one's size")}
SPECS: dict[str, MultipathSpec] = {name: spec for name, (spec, _) in _MODELS.items()}
BASELINES = {
    "multipath_resnet18": (False, "ResNet-18 with a 3x3 stem, for 32x32 images"),
    "multipath_se_resnet18": (True, "SE-ResNet-18 (r = 16) with a 3x3 stem, for 32x32 images"),
}

default_cfgs: dict[str, Any] = {}  # timm reads it when a model is registered


def register() -> None:
    """Make every model known to timm. Called once, when timm is there."""
    # From where it is defined, so that this works while timm.models itself is being imported.
    from timm.models._registry import generate_default_cfgs, register_model

    cfgs = {
        name: _default_cfg(what, 8, "stem.conv", "head.fc") for name, (_, what) in _MODELS.items()
    }
    cfgs |= {name: _default_cfg(what, 4, "conv1", "fc") for name, (_, what) in BASELINES.items()}
    default_cfgs.update(generate_default_cfgs(cfgs))
    for name in cfgs:
        register_model(globals()[name])


def _default_cfg(what: str, pool: int, first_conv: str, classifier: str) -> dict[str, Any]:
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    return {
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (pool, pool),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": first_conv,
        "classifier": classifier,
        "license": "apache-2.0",
        "description": f"{what}. {RECONSTRUCTION}",
        "paper_name": PAPER,
        "paper_ids": "doi:10.3778/j.issn.1002-8331.2110-0083",
        "notes": (RECONSTRUCTION,),
    }


def _network(
    name: str, *, device: Any = None, dtype: torch.dtype | None = None, **kwargs: Any
) -> nn.Module:
    """The network of that name. Raises TypeError for a keyword that nothing knows."""
    import torch

    with torch.device(device) if device is not None else nullcontext():
        net = _baseline(name, kwargs) if name in BASELINES else _multipath(name, kwargs)
    return net.to(dtype=dtype)


def _multipath(name: str, kwargs: dict[str, Any]) -> nn.Module:
    from convnext_study.studies.multipath.network import MultipathNet

    fields = [field.name for field in dataclasses.fields(MultipathSpec)]
    arguments = list(inspect.signature(MultipathNet).parameters)[1:]
    for key in kwargs:
        if key not in (*fields, *arguments):
            raise TypeError(f"{name}: no argument {key}{did_you_mean(key, [*arguments, *fields])}")
    spec = SPECS[name].replace(**{key: kwargs.pop(key) for key in fields if key in kwargs})
    return MultipathNet(spec, **kwargs)


def _baseline(name: str, kwargs: dict[str, Any]) -> nn.Module:
    from convnext_study.studies.multipath.baselines import resnet18

    net: nn.Module = resnet18(se=BASELINES[name][0], **kwargs)
    return net


def _entry_point(name: str, what: str, feature_cfg: dict[str, Any]) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from timm.models._builder import build_model_with_cfg

        model: nn.Module = build_model_with_cfg(
            partial(_network, name),
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg=dict(feature_cfg),
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{what}. {RECONSTRUCTION}"
    return create


_STAGES = {"out_indices": tuple(range(STAGES)), "flatten_sequential": True}
globals().update({name: _entry_point(name, what, _STAGES) for name, (_, what) in _MODELS.items()})
globals().update({name: _entry_point(name, what, {}) for name, (_, what) in BASELINES.items()})
