"""The study's networks in records of runs: what their builders are called, and what they build."""

from __future__ import annotations

from typing import Any

from torch import nn

from convnext_study.models.builders import ROADMAP_BUILDER, get_builder
from convnext_study.models.timm_model import TimmModel
from convnext_study.roadmap.spec import NetSpec
from convnext_study.runs.keys import without_defaults
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import DependencyGraph, ImageSize
from convnext_study.studies.pruning.channel_groups import Kept, narrowed
from convnext_study.studies.pruning.methods.structure_selection import add_factors
from convnext_study.studies.pruning.specs import from_dict

# Names of builders in records, as in the `Study`.
OWN, NARROWED, FACTORED = "pruning", "pruning-narrowed", "pruning-factored"


def network_of(model: ModelRef, classes: int, **changes: Any) -> nn.Module:
    """A record's network, with any weights; ``changes`` are ``drop_path`` and ``init``."""
    how = {"drop_path": 0.0, "init": "kaiming", **changes}
    net: nn.Module = get_builder(model.builder)(model.args, num_classes=classes, **how)
    return net


def pruned_ref(ref: ModelRef, kept: Kept, image_size: ImageSize) -> ModelRef:
    """The record of a narrower network: its spec, or the parent's record and what stays of it."""
    if ref.builder == OWN:
        return ModelRef(builder=OWN, args=narrowed(from_dict(ref.args), kept).to_dict())
    plain = {name: [int(channel) for channel in channels] for name, channels in kept.items()}
    parent = ref.model_dump(mode="json")
    if ref.builder == ROADMAP_BUILDER:  # so that a new field, at its default, changes no key
        parent["args"] = without_defaults(ref.args, NetSpec().to_dict())
    args = {"parent": parent, "kept": plain, "image_size": list(image_size)}
    return ModelRef(builder=NARROWED, args=args)


def factored_ref(model: ModelRef) -> ModelRef:
    """The record of the same network with a factor on each residual branch."""
    return ModelRef(builder=FACTORED, args={"network": model.model_dump(mode="json")})


def same_architecture(one: ModelRef, other: ModelRef) -> bool:
    """Whether weights of the one fit the other: of a traced network only the number of channels
    counts, not which ones they were."""
    if one.builder == other.builder == NARROWED:
        mine, its = (
            {**ref.args, "kept": {name: len(kept) for name, kept in ref.args["kept"].items()}}
            for ref in (one, other)
        )
        return mine == its
    return one == other


def build_narrowed(args: dict[str, Any], *, num_classes: int, **how: Any) -> nn.Module:
    """The network of a record that `pruned_ref` made of another room's.

    The parent is built and the same channels are removed. A network of this package then starts as
    networks of its widths do; others keep what is left of their parent's start.
    """
    net = network_of(ModelRef(**args["parent"]), num_classes, **how)
    channels, height, width = args["image_size"]
    DependencyGraph(net, (channels, height, width)).remove(args["kept"])
    own: Any = net if isinstance(net, TimmModel) else None
    if own is not None:
        own.init_weights(how["init"])
    return net


def build_factored(args: dict[str, Any], *, num_classes: int, **how: Any) -> nn.Module:
    """The network of a record that `factored_ref` made."""
    net = network_of(ModelRef(**args["network"]), num_classes, **how)
    add_factors(net)
    return net
