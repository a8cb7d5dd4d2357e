"""What a method leaves of a trained network: a narrower one, or masks on its weights.

A run's task holds the method's name and arguments in plain values (`MethodArgs`); everything else
is the trained network's, the data's and the seed's.
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
        widths: of predefined methods: how many channels of each layer stay.
        ratio: of automatic ones: the share that goes, of channels, weights or filters.
        macs: of network slimming, in place of the ratio: the budget to come nearest to.
        design_macs: of `STAGE_SHARES`: the budget of the design. (default: the slimmed network's;
            of another network, what the shares leave)
        source: what the trained network sees, where it is trained on other data.
        images_per_class: that methods with samples look at.
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
        """The ratio of a method that needs one. Raises UserError where there is none."""
        if self.ratio is None:
            raise UserError(f"method {self.method}: needs a ratio; use a share from 0 to below 1")
        return self.ratio


@dataclass(frozen=True)
class Pruned:
    """What is left: the ``network``, narrower, with its weights and its record; or ``masks``.

    A designed architecture has a record alone: no weights come with it.
    """

    network: nn.Module | None = None
    model: ModelRef | None = None
    masks: magnitude.Masks = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A trained network that is to be pruned.

    ``net`` is in evaluation mode, and methods may change its weights; ``images`` are what it sees;
    ``samples`` gives about so many training images per class and their labels, in batches; ``seed``
    is that of every draw; ``design`` is the network whose widths are designed, on its own images.
    """

    net: nn.Module
    model: ModelRef
    images: Images
    samples: Callable[[int], Sequence[tuple[Tensor, Tensor]]]
    seed: int
    design: UntrainedNetwork

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Its channels that can go."""
        return find_groups(self.net, self.images.shape).groups


def prune(trained: Trained, args: MethodArgs) -> Pruned:
    """Prune a network as a run asks.

    Raises UserError for an unknown method or what it cannot do, PruningError naming the layer.
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
    # A layer that stays whole would be sampled for nothing.
    layers = [one for one in check_widths(args.widths, trained.groups) if one[1] < one[0].width]
    images = [one for one, _ in trained.samples(args.images_per_class)]
    kept: Kept = method(trained.net, layers, images, seed=trained.seed)
    return kept


def _slim(trained: Trained, args: MethodArgs) -> Kept:
    if args.macs is None:
        return architectures.keep_channels(trained.net, trained.groups, args.share)
    whole = untrained(trained.model, trained.images)
    return architectures.keep_budget(trained.net, trained.groups, args.macs, whole)


def _patterns(trained: Trained, args: MethodArgs) -> magnitude.Masks:
    """Guided sparsification: the usual masks, averaged over the 3x3 kernels of each stage."""
    usual = magnitude.magnitude_masks(trained.net, args.share)
    layers: dict[int, list[str]] = {}
    for group in trained.groups:
        own = [name for name in group.producers if f"{name}.weight" in usual]
        layers.setdefault(group.stage, []).extend(own)
    return magnitude.guided_sparsification(layers, usual)


def _design(trained: Trained, args: MethodArgs) -> ModelRef:
    """Guided, or transferred where it is another network: stages keep the slimmed one's shares."""
    slimmed, whole = _slim(trained, args), trained.design
    groups, macs = whole.sound.groups, args.design_macs
    each = architectures.shares_by_stage(groups, trained.groups, slimmed)
    if macs is None and whole.model == trained.model:
        macs = whole.narrowed({name: len(left) for name, left in slimmed.items()}).cost.macs
    fitted = (
        architectures.widths_at(groups, each)
        if macs is None
        else architectures.fit_widths(whole, groups, each, macs)
    )
    return whole.narrowed(fitted).model


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
    "magnitude": lambda one, args: magnitude.magnitude_masks(one.net, args.share),
    "magnitude-round": lambda one, args: magnitude.magnitude_masks(one.net, args.share, again=True),
    "lamp": lambda one, args: magnitude.magnitude_masks(one.net, args.share, size=magnitude.lamp),
    "guided-patterns": _patterns,
    # Of soft filter pruning's network, which has these zeros already.
    SOFT_FILTERS: lambda one, args: magnitude.soft_filter_masks(one.net, args.share),
}
