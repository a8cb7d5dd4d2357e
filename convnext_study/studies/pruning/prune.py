"""Pruning a trained network by a method: the result is a narrower network, or masks on its weights.

A run's task has the method's name and arguments in plain values (`MethodArgs`); everything else
follows from the trained network, the data and the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from convnext_study.errors import UserError, did_you_mean
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import Group, Kept, check_widths
from convnext_study.studies.pruning.costs import Images, UntrainedNetwork, untrained
from convnext_study.studies.pruning.methods import (
    architectures,
    magnitude,
    reconstruction,
    selection,
)
from convnext_study.studies.pruning.removal import find_groups, own_ref, pruned_ref, remove


class MethodArgs(BaseModel):
    """A method and how much it prunes.

    Args:
        method: one of `all_methods`.
        widths: for predefined methods: channels to keep, by layer.
        ratio: for automatic ones: the share of channels, weights or filters to prune.
        macs: for network slimming, in place of the ratio: the budget to come nearest to.
        design_macs: for `STAGE_SHARES`: the budget of the design. (default: the slimmed network's;
            for another network, what the shares give)
        source: input and classes of a network trained on other data.
        images_per_class: for methods with samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    widths: dict[str, int] = Field(default_factory=dict)
    ratio: float | None = Field(default=None, ge=0, lt=1)
    macs: int | None = Field(default=None, ge=1)
    design_macs: int | None = Field(default=None, ge=1)
    source: Images | None = None
    images_per_class: int = Field(default=10, ge=1)

    @property
    def share(self) -> float:
        """The ratio of a method that needs one. Raises UserError if there is none."""
        if self.ratio is None:
            raise UserError(f"method {self.method}: needs a ratio, at least 0 and below 1")
        return self.ratio


@dataclass(frozen=True)
class Pruned:
    """A narrower ``network`` with its weights and its record ``model``; or ``masks``.

    A designed architecture only has a record, no weights.
    """

    network: nn.Module | None = None
    model: ModelRef | None = None
    masks: magnitude.Masks = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A trained network to prune.

    ``net`` is in evaluation mode, and methods may change its weights; ``images`` are its input and
    classes; ``samples`` returns batches of about so many training images per class, with labels;
    ``seed`` is used for every draw; ``design`` is the network whose widths are designed.
    """

    net: nn.Module
    model: ModelRef
    images: Images
    samples: Callable[[int], Sequence[tuple[Tensor, Tensor]]]
    seed: int
    design: UntrainedNetwork

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Its channels that can be removed."""
        return find_groups(self.net, self.images.shape).groups


def prune(trained: Trained, args: MethodArgs) -> Pruned:
    """Prune a network by a run's method.

    Raises UserError for a method that is unknown or does not apply, PruningError naming the layer.
    """
    if args.method in METHODS:
        kept = METHODS[args.method](trained, args)
        size = trained.images.shape
        return Pruned(remove(trained.net, kept, size), pruned_ref(trained.model, kept, size))
    if args.method in MASKS:
        return Pruned(masks=MASKS[args.method](trained, args))
    if args.method == SELECTION:
        left: Any = selection.remove_branches(trained.net)
        return Pruned(left, own_ref(left.spec))
    if args.method == STAGE_SHARES:
        return Pruned(model=_design(trained, args))
    raise UserError(f"method: {args.method!r}{did_you_mean(args.method, all_methods())}")


def all_methods() -> list[str]:
    """The names of every method."""
    return [*METHODS, *MASKS, SELECTION, STAGE_SHARES]


Method: TypeAlias = Callable[[Trained, MethodArgs], Kept]


def _by_score(score: magnitude.Score, choose: magnitude.Choice = "largest") -> Method:
    return lambda trained, args: magnitude.keep_filters(
        trained.net, trained.groups, args.widths, choose=choose, seed=trained.seed, score=score
    )


def _taylor(trained: Trained, args: MethodArgs) -> Kept:
    for images, labels in trained.samples(args.images_per_class):
        loss = F.cross_entropy(trained.net(images), labels, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
    kept = _by_score(magnitude.taylor)(trained, args)
    trained.net.zero_grad()
    return kept


def _by_samples(method: Any, trained: Trained, args: MethodArgs) -> Kept:
    # Layers that stay whole need no samples.
    layers = [
        (group, width)
        for group, width in check_widths(args.widths, trained.groups)
        if width < group.width
    ]
    images = [images for images, _ in trained.samples(args.images_per_class)]
    kept: Kept = method(trained.net, layers, images, seed=trained.seed)
    return kept


def _slim(trained: Trained, args: MethodArgs) -> Kept:
    if args.macs is None:
        return architectures.keep_channels(trained.net, trained.groups, args.share)
    whole = untrained(trained.model, trained.images)
    return architectures.keep_budget(trained.net, trained.groups, args.macs, whole)


def _patterns(trained: Trained, args: MethodArgs) -> magnitude.Masks:
    """Guided sparsification: magnitude's masks, averaged over the 3x3 kernels of each stage."""
    masks = magnitude.magnitude_masks(trained.net, args.share)
    layers: dict[int, list[str]] = {}
    for group in trained.groups:
        convs = [name for name in group.producers if f"{name}.weight" in masks]
        layers.setdefault(group.stage, []).extend(convs)
    return magnitude.guided_sparsification(layers, masks)


def _design(trained: Trained, args: MethodArgs) -> ModelRef:
    """A guided architecture, or transferred to another network: stages keep the slimmed network's
    shares."""
    slimmed, whole = _slim(trained, args), trained.design
    groups, macs = whole.sound.groups, args.design_macs
    shares = architectures.shares_by_stage(groups, trained.groups, slimmed)
    if macs is None and whole.model == trained.model:
        macs = whole.narrowed({name: len(kept) for name, kept in slimmed.items()}).cost.macs
    widths = (
        architectures.widths_at(groups, shares)
        if macs is None
        else architectures.fit_widths(whole, groups, shares, macs)
    )
    return whole.narrowed(widths).model


SELECTION, STAGE_SHARES, SOFT_FILTERS = "structure-selection", "stage-shares", "soft-filters"
METHODS: dict[str, Method] = {
    "l1-norm": _by_score(magnitude.l1_norm),
    "l1-smallest": _by_score(magnitude.l1_norm, "smallest"),
    "l1-random": _by_score(magnitude.l1_norm, "random"),
    "geometric-median": _by_score(magnitude.geometric_median),
    "group-norm": _by_score(magnitude.group_norm),
    "taylor": _taylor,
    "thinet": partial(_by_samples, reconstruction.prune_by_thinet),
    "regression": partial(_by_samples, reconstruction.prune_by_regression),
    "slimming": _slim,
}
MASKS: dict[str, Callable[[Trained, MethodArgs], Mapping[str, Tensor]]] = {
    "magnitude": lambda it, args: magnitude.magnitude_masks(it.net, args.share),
    "magnitude-round": lambda it, args: magnitude.magnitude_masks(it.net, args.share, again=True),
    "lamp": lambda it, args: magnitude.magnitude_masks(it.net, args.share, size=magnitude.lamp),
    "guided-patterns": _patterns,
    # Soft filter pruning's network already has these zeros.
    SOFT_FILTERS: lambda it, args: magnitude.soft_filter_masks(it.net, args.share),
}
