"""What a method leaves of a trained network: a narrower one, or masks on its weights.

A run's task holds the method's name and arguments in plain values (`MethodArgs`); everything else
is the trained network's, the data's and the seed's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from convnext_study.errors import UserError, did_you_mean
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.apply import OWN, groups_of, pruned_ref, remove
from convnext_study.studies.pruning.factors import factors_of
from convnext_study.studies.pruning.groups import Kept, check_widths
from convnext_study.studies.pruning.methods import (
    architectures,
    at_budget,
    controls,
    l1_norm,
    magnitude,
    regression,
    slimming,
    soft_filters,
    structure_selection,
    thinet,
)
from convnext_study.studies.pruning.pruned import MethodArgs, Pruned, Trained


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
        return _select(trained)
    if args.method == STAGE_SHARES:
        return Pruned(model=_design(trained, args))
    known = all_methods()
    raise UserError(f"method: {args.method!r}{did_you_mean(args.method, known)}")


def all_methods() -> list[str]:
    """The names of every method."""
    return [*METHODS, *MASKS, SELECTION, STAGE_SHARES]


def _l1(choose: str) -> Callable[[Trained, MethodArgs], Kept]:
    def keep(trained: Trained, args: MethodArgs) -> Kept:
        groups = groups_of(trained.net, trained.image_size)
        return l1_norm.keep_filters(
            trained.net, groups, args.widths, choose=choose, seed=trained.seed
        )

    return keep


def _by_samples(method: Any) -> Callable[[Trained, MethodArgs], Kept]:
    def keep(trained: Trained, args: MethodArgs) -> Kept:
        groups, size = groups_of(trained.net, trained.image_size), trained.image_size
        # A layer that stays whole would be sampled for nothing.
        widths = {
            group.name: width
            for group, width in check_widths(args.widths, groups)
            if width < group.width
        }
        images = trained.samples(args.images_per_class)
        kept: Kept = method(trained.net, groups, widths, images, size, seed=trained.seed)
        return kept

    return keep


def _slim(trained: Trained, args: MethodArgs) -> Kept:
    groups = groups_of(trained.net, trained.image_size)
    if args.macs is not None:
        return at_budget.slim(trained.net, groups, args.macs, trained.image_size)
    return slimming.keep_channels(trained.net, groups, _ratio(args), keep_one=True)


def _magnitude(trained: Trained, args: MethodArgs) -> Mapping[str, Tensor]:
    return magnitude.one_shot(trained.net, _ratio(args))


def _round(trained: Trained, args: MethodArgs) -> Mapping[str, Tensor]:
    """Of the weights that the rounds before left: the others are zero in the trained network."""
    weights = magnitude.conv_weights(trained.net)
    left = {name: weight != 0 for name, weight in weights.items()}
    return magnitude.iterate(trained.net, left, _ratio(args))


def _patterns(trained: Trained, args: MethodArgs) -> Mapping[str, Tensor]:
    """Guided sparsification: the usual masks, averaged over the 3x3 kernels of each stage."""
    masks = _magnitude(trained, args)
    layers: dict[int, list[str]] = {}
    for group in groups_of(trained.net, trained.image_size):
        own = [name for name in group.producers if f"{name}.weight" in masks]
        layers.setdefault(group.stage, []).extend(own)
    patterns = architectures.kernel_patterns(layers, masks)
    return architectures.guided_sparsification(layers, patterns, masks)


def _zeros(trained: Trained, args: MethodArgs) -> Mapping[str, Tensor]:
    """Of soft filter pruning's network, which has them already."""
    found = soft_filters.smallest_filters(trained.net, _ratio(args))
    return soft_filters.pattern_masks(trained.net, found)


def _select(trained: Trained) -> Pruned:
    net: Any = trained.net
    kept = structure_selection.kept_branches(factors_of(net))
    small = structure_selection.remove_branches(net, kept)
    spec = structure_selection.branch_spec(net.spec, kept)
    return Pruned(small, ModelRef(builder=OWN, args=spec.to_dict()))


def _design(trained: Trained, args: MethodArgs) -> ModelRef:
    """Guided, or transferred where it is another network: stages keep the slimmed one's shares."""
    slimmed = _slim(trained, args)
    shares = architectures.stage_shares(groups_of(trained.net, trained.image_size), slimmed)
    net, model, size = trained.design or (trained.net, trained.model, trained.image_size)
    groups = groups_of(net, size)
    widths = architectures.design_widths(groups, shares)
    macs = args.design_macs
    if macs is None and model == trained.model:
        left = {name: len(channels) for name, channels in slimmed.items()}
        macs = controls.count_macs(net, left, size)
    if macs is not None:
        each = {group.name: shares[group.stage] for group in groups}
        widths = controls.fit_widths(net, groups, each, macs, size)
    return pruned_ref(model, controls.kept_of(widths), size)


def _ratio(args: MethodArgs) -> float:
    if args.ratio is None:
        raise UserError(f"method {args.method}: needs a ratio; use a share from 0 to below 1")
    return args.ratio


SELECTION = "structure-selection"
STAGE_SHARES = "stage-shares"
METHODS: dict[str, Callable[[Trained, MethodArgs], Kept]] = {
    "l1-norm": _l1("largest"),
    "l1-smallest": _l1("smallest"),
    "l1-random": _l1("random"),
    "thinet": _by_samples(thinet.prune),
    "regression": _by_samples(regression.prune),
    "slimming": _slim,
}
MASKS: dict[str, Callable[[Trained, MethodArgs], Mapping[str, Tensor]]] = {
    "magnitude": _magnitude,
    "magnitude-round": _round,
    "guided-patterns": _patterns,
    "soft-filters": _zeros,
}
