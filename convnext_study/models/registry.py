"""Networks as models of timm: the one place where they are registered.

A list of them is a module with ``MODELS``, each model's name and `ModelEntry`, which imports
neither torch nor timm. The list here is every row of every road map, as in
``timm.create_model("roadmap_t_gelu")``; studies have their own. `timm_hook` registers all of them
once timm is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.imports import resolve
from convnext_study.roadmap import ROADMAPS, Roadmap, Variant
from convnext_study.roadmap.spec import STAGES, NetSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__: list[str] = ["ModelEntry", "register_models"]  # timm adds every model to it

# Prefixes of DistributedDataParallel and torch.compile, in either order.
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")

default_cfgs: dict[str, Any] = {}  # read by timm when a model is registered


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of timm.

    Args:
        network: ``module:name`` of a network's class or of a function that returns one, imported
            when a model is built. It takes the spec, if there is one, and keywords.
        description: one line for `timm.get_pretrained_cfg` and the entry point's docstring.
        cfg: timm's description of the network and its images, where it differs from the road map's:
            ``num_classes``, ``input_size`` and ``pool_size`` at least.
        spec: a frozen dataclass; keywords of `timm.create_model` may set its fields.
        args: further keywords that the network is built with.
        features: arguments of timm's ``features_only``, or a function of the spec that returns
            them; stages are flattened in a `TimmModel`.
        released: for an end of the road, the weights that others have released.
        listed: whether `timm.list_models` shows it, whose users expect one row of logits per image;
            `timm.create_model` makes it either way.
    """

    network: str
    description: str
    cfg: Mapping[str, Any]
    spec: Any = None
    args: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = field(default_factory=dict)
    released: Released | None = None
    listed: bool = True


@dataclass(frozen=True)
class Released:
    """Weights that timm publishes under tags, for a network that is the same as one of ours.

    Args:
        model: its name in timm.
        tag: of the default weights.
        sets: fields of the spec in which these weights differ from the road map's row.
    """

    model: str
    tag: str
    sets: Mapping[str, Any] = field(default_factory=dict)

    def cfgs(self) -> dict[str, dict[str, Any]]:
        """timm's description of each of the weights, by tag, except for those without a
        classifier."""
        from timm.models._registry import get_pretrained_cfg, list_models

        by_tag = {}
        for name in list_models(f"{self.model}.*", pretrained=True):
            cfg = get_pretrained_cfg(name)
            if cfg is not None and cfg.num_classes:
                by_tag[str(cfg.tag)] = {**dataclasses.asdict(cfg), **_NAMES}
        return by_tag


# Names of our layers in timm's descriptions.
_NAMES = {"first_conv": "stem.conv", "classifier": "head.fc"}


def register_models(models: Mapping[str, ModelEntry]) -> None:
    """Register models with timm, which must be imported. Keywords set arguments of the network and
    fields of its spec: ``timm.create_model("roadmap_t_gelu", kernel=9)``.
    """
    # From its defining module, so that this works while timm.models itself is being imported.
    from timm.models._registry import _deprecated_models, generate_default_cfgs, register_model

    cfgs = {name: _default_cfg(entry) for name, entry in models.items()}
    for name, entry in models.items():
        tagged = entry.released.cfgs() if entry.released else {}
        cfgs |= {f"{name}.{tag}": cfg for tag, cfg in tagged.items()}
    default_cfgs.update(generate_default_cfgs(cfgs))
    for name, entry in models.items():
        if entry.released:
            tags = default_cfgs[name].tags
            tags.remove("")  # comes first: without weights it is the road map's row
            tags.appendleft("")
        globals()[name] = _entry_point(name, entry)
        register_model(globals()[name])
        if not entry.listed:  # this keeps names out of lists, and does nothing else
            _deprecated_models[name] = name


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The weights in a checkpoint of this package, without prefixes of wrappers, or released
    weights, renamed to our names."""
    weights: dict[str, Any] = state_dict.get("model", state_dict)
    weights = {_WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}
    spec = getattr(model, "spec", None)
    if f"{_NAMES['first_conv']}.weight" in weights or not isinstance(spec, NetSpec):
        return weights
    from convnext_study.models.pretrained.convert import to_roadmap

    return to_roadmap(weights, spec)


def _default_cfg(entry: ModelEntry) -> dict[str, Any]:
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    common = {
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        **_NAMES,
        "license": "apache-2.0",
        "description": entry.description,
    }
    return {**common, **entry.cfg}


def _entry_point(name: str, entry: ModelEntry) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from timm.models._builder import build_model_with_cfg

        fields = [] if entry.spec is None else [f.name for f in dataclasses.fields(entry.spec)]
        changes = {key: kwargs.pop(key) for key in fields if key in kwargs}
        if pretrained and entry.released:
            if not (kwargs.get("pretrained_cfg") or kwargs.get("pretrained_cfg_overlay")):
                kwargs["pretrained_cfg"] = entry.released.tag
            if kwargs.get("pretrained_cfg"):
                changes = {**entry.released.sets, **changes}
        spec = replace(entry.spec, **changes) if changes else entry.spec
        features = entry.features(spec) if callable(entry.features) else entry.features
        model: nn.Module = build_model_with_cfg(
            partial(_network, name, replace(entry, spec=spec)),
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg=dict(features),
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = entry.description
    return create


def _network(
    name: str,
    entry: ModelEntry,
    *,
    device: Any = None,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> nn.Module:
    """The network of an entry. Raises TypeError for an unknown keyword."""
    import torch

    network = resolve(entry.network)
    spec = [] if entry.spec is None else [entry.spec]
    parameters = inspect.signature(network).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        arguments = list(parameters)[len(spec) :]
        fields = [f.name for part in spec for f in dataclasses.fields(part)]
        for key in kwargs:
            if key not in arguments:
                hint = did_you_mean(key, [*arguments, *fields])
                raise TypeError(f"{name}: no argument {key}{hint}")
    with torch.device(device) if device is not None else nullcontext():
        net: nn.Module = network(*spec, **{**entry.args, **kwargs})
    return net.to(dtype=dtype)


# Each model's row. The first row of a road map is the second's network with another recipe.
VARIANTS: dict[str, Variant] = {
    variant.model: variant for road in ROADMAPS.values() for variant in road.variants()
}


# ConvNeXt is the last row with layer scale; timm's `tv_in1k` is torchvision's first ResNet-50.
_CONVNEXT = {"layer_scale": 1e-6}
RELEASED = {
    "roadmap_t_resnet50": Released("resnet50", "tv_in1k"),
    "roadmap_t_separate_downsampling": Released("convnext_tiny", "fb_in1k", _CONVNEXT),
    "roadmap_b_separate_downsampling": Released("convnext_base", "fb_in1k", _CONVNEXT),
}


def _entry(road: Roadmap, variant: Variant) -> ModelEntry:
    size = road.image_size
    pool = size // (variant.spec.stem_stride * 2 ** (STAGES - 1))
    return ModelEntry(
        network="convnext_study.models.roadmap_net:RoadmapNet",
        spec=variant.spec,
        description=f"{variant.label}: {road.title}",
        cfg={
            "num_classes": road.num_classes,
            "input_size": (3, size, size),
            "pool_size": (pool, pool),
            "paper_ids": "arXiv:2201.03545",
        },
        features={"out_indices": tuple(range(STAGES)), "flatten_sequential": True},
        released=RELEASED.get(variant.model),
    )


MODELS = {name: _entry(ROADMAPS[variant.regime], variant) for name, variant in VARIANTS.items()}
