"""What a method leaves of a trained network: a narrower one, or masks on its weights.

A run's task holds the method's name and arguments in plain values (`MethodArgs`); everything else
is the trained network's, the data's and the seed's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from convnext_study.errors import UserError, did_you_mean
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import Group, Kept, check_widths, kept_of
from convnext_study.studies.pruning.costs import Images
from convnext_study.studies.pruning.methods import (
    criteria,
    designed,
    magnitude,
    reconstruction,
    selection,
    slimming,
)
from convnext_study.studies.pruning.removal import OWN, ImageSize, groups_of, pruned_ref, remove


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
    ratio: float | None = Field(default=None, ge=0, le=1)
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

    ``net`` is in evaluation mode, and methods may change its weights; ``samples`` gives about so
    many training images per class, in batches; ``seed`` is that of every draw; ``design`` is the
    network whose widths are designed, in evaluation mode, with its record and its images' size;
    ``backward`` leaves the gradients of the loss on so many training images per class.
    """

    net: nn.Module
    model: ModelRef
    image_size: ImageSize
    samples: Callable[[int], Sequence[Tensor]]
    seed: int
    design: tuple[nn.Module, ModelRef, ImageSize] | None = None
    backward: Callable[[nn.Module, int], None] = lambda net, count: None

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Its channels that can go."""
        return groups_of(self.net, self.image_size)


def prune(trained: Trained, args: MethodArgs) -> Pruned:
    """Prune a network as a run asks.

    Raises UserError for an unknown method or what it cannot do, PruningError naming the layer.
    """
    if args.method in METHODS:
        kept = METHODS[args.method](trained, args)
        small = remove(trained.net, kept, trained.image_size)
        return Pruned(small, pruned_ref(trained.model, kept, trained.image_size))
    if args.method in MASKS:
        return Pruned(masks=MASKS[args.method](trained, args))
    if args.method == SELECTION:
        branches = selection.kept_branches(selection.factors_of(trained.net))
        left: Any = selection.remove_branches(trained.net, branches)
        return Pruned(left, ModelRef(builder=OWN, args=left.spec.to_dict()))
    if args.method == STAGE_SHARES:
        return Pruned(model=_design(trained, args))
    raise UserError(f"method: {args.method!r}{did_you_mean(args.method, all_methods())}")


def all_methods() -> list[str]:
    """The names of every method."""
    return [*METHODS, *MASKS, SELECTION, STAGE_SHARES]


Method: TypeAlias = Callable[[Trained, MethodArgs], Kept]


def _by_score(score: criteria.Score, choose: magnitude.Choice = "largest") -> Method:
    return lambda trained, args: magnitude.keep_filters(
        trained.net, trained.groups, args.widths, choose=choose, seed=trained.seed, score=score
    )


def _taylor(trained: Trained, args: MethodArgs) -> Kept:
    trained.backward(trained.net, args.images_per_class)
    kept = _by_score(criteria.taylor)(trained, args)
    trained.net.zero_grad()
    return kept


def _by_samples(method: Any, trained: Trained, args: MethodArgs) -> Kept:
    # A layer that stays whole would be sampled for nothing.
    named = check_widths(args.widths, groups := trained.groups)
    widths = {group.name: width for group, width in named if width < group.width}
    images, size = trained.samples(args.images_per_class), trained.image_size
    kept: Kept = method(trained.net, groups, widths, images, size, seed=trained.seed)
    return kept


def _slim(trained: Trained, args: MethodArgs) -> Kept:
    if args.macs is not None:
        return slimming.keep_budget(trained.net, trained.groups, args.macs, trained.image_size)
    return slimming.keep_channels(trained.net, trained.groups, args.share)


def _patterns(trained: Trained, args: MethodArgs) -> magnitude.Masks:
    """Guided sparsification: the usual masks, averaged over the 3x3 kernels of each stage."""
    usual = magnitude.magnitude_masks(trained.net, args.share)
    layers: dict[int, list[str]] = {}
    for group in trained.groups:
        own = [name for name in group.producers if f"{name}.weight" in usual]
        layers.setdefault(group.stage, []).extend(own)
    return designed.guided_sparsification(layers, usual)


def _design(trained: Trained, args: MethodArgs) -> ModelRef:
    """Guided, or transferred where it is another network: stages keep the slimmed one's shares."""
    slimmed = _slim(trained, args)
    shares = designed.stage_shares(trained.groups, slimmed)
    net, model, size = trained.design or (trained.net, trained.model, trained.image_size)
    groups = groups_of(net, size)
    each, macs = designed.layer_shares(groups, shares), args.design_macs
    if macs is None and model == trained.model:
        left = {name: len(channels) for name, channels in slimmed.items()}
        macs = designed.count_macs(net, left, size, groups)
    widths = (
        designed.widths_at(groups, each)
        if macs is None
        else designed.fit_widths(net, groups, each, macs, size)
    )
    return pruned_ref(model, kept_of(widths, groups), size)


SELECTION, STAGE_SHARES, SOFT_FILTERS = "structure-selection", "stage-shares", "soft-filters"
METHODS: dict[str, Method] = {
    "l1-norm": _by_score(criteria.l1_norm),
    "l1-smallest": _by_score(criteria.l1_norm, "smallest"),
    "l1-random": _by_score(criteria.l1_norm, "random"),
    "geometric-median": _by_score(criteria.geometric_median),
    "group-norm": _by_score(criteria.group_norm),
    "taylor": _taylor,
    "thinet": partial(_by_samples, reconstruction.prune_by_thinet),
    "regression": partial(_by_samples, reconstruction.prune_by_regression),
    "slimming": _slim,
}
MASKS: dict[str, Callable[[Trained, MethodArgs], Mapping[str, Tensor]]] = {
    "magnitude": lambda one, args: magnitude.magnitude_masks(one.net, args.share),
    "magnitude-round": lambda one, args: magnitude.magnitude_masks(one.net, args.share, again=True),
    "lamp": lambda one, args: magnitude.magnitude_masks(one.net, args.share, size=criteria.lamp),
    "guided-patterns": _patterns,
    # Of soft filter pruning's network, which has these zeros already.
    SOFT_FILTERS: lambda one, args: magnitude.soft_filter_masks(one.net, args.share),
}
