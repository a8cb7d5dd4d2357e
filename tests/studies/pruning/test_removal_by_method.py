"""Every method on every family: the narrower network has the outputs of the masked one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.pruning_nets import FOREIGN, SMALL, foreign, pictures, small
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.channel_groups import Group, Kept, kept_of, widths_left
from convnext_study.studies.pruning.methods import designed, magnitude, reconstruction, slimming
from convnext_study.studies.pruning.methods.magnitude import Choice, keep_filters
from convnext_study.studies.pruning.prune import all_methods
from convnext_study.studies.pruning.removal import ImageSize, groups_of, mask, remove

Method = Callable[[Any, Sequence[Group], Tensor], Kept]


def size_of(images: Tensor) -> ImageSize:
    _, channels, height, width = images.shape
    return channels, height, width


def by_norm(choose: Choice) -> Method:
    def keep(net: Any, groups: Sequence[Group], _: Tensor) -> Kept:
        own = [group for group in groups if group.producers]
        return keep_filters(net, groups, widths_left(own, 0.5), choose=choose, seed=3)

    return keep


def scales(net: Any, groups: Sequence[Group], _: Tensor) -> Kept:
    return slimming.keep_channels(net, groups, 0.4)


def fitted(net: Any, groups: Sequence[Group], shares: dict[str, float], images: Tensor) -> Kept:
    image = size_of(images)
    whole = designed.count_macs(net, {}, image)
    least = designed.count_macs(net, {group.name: 1 for group in groups}, image)
    return kept_of(designed.fit_widths(net, groups, shares, (whole + least) // 2, image))


def uniform(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    return fitted(net, groups, {group.name: 1.0 for group in groups}, images)


def random_widths(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    return fitted(net, groups, designed.random_shares(groups, seed=1), images)


def guided(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    kept = {groups[0].name: [0], groups[-1].name: [0]}
    shares = designed.layer_shares(groups, designed.stage_shares(groups, kept))
    return kept_of(designed.widths_at(groups, shares))


def by_samples(prune: Any) -> Method:
    def keep(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
        # Two of those that a layer reads without flattening the map: each takes its time.
        two = [
            group
            for group in groups
            if not group.concatenated and all(repeat == 1 for _, repeat in group.consumers)
        ][-2:]
        kept: Kept = prune(net, groups, widths_left(two, 0.5), [images], size_of(images))
        return kept

    return keep


def ticket(net: Any, groups: Sequence[Group], _: Tensor) -> Kept:
    """A lottery mask that empties whole filters: they can go once their shifts are zero too."""
    own = [group.name for group in groups if group.producers]
    with torch.no_grad():
        for name in own:  # so small that magnitude pruning takes them whole
            net.get_parameter(f"{name}.weight")[::2] *= 1e-6
    return filters_left(net, own, magnitude.magnitude_masks(net, 0.6))


def soft(net: Any, groups: Sequence[Group], _: Tensor) -> Kept:
    own = [group.name for group in groups if group.producers]
    return filters_left(net, own, magnitude.soft_filter_masks(net, 0.5))


def filters_left(net: Any, names: Sequence[str], held: magnitude.Masks) -> Kept:
    """The filters of which a mask leaves a weight; at least one of a layer."""
    left = {
        name: held[f"{name}.weight"].flatten(1).any(1).nonzero().flatten().tolist() or [0]
        for name in names
        if f"{name}.weight" in held
    }
    magnitude.apply_masks(net, held)
    return left


METHODS: dict[str, Method] = {
    "l1_norm": by_norm("largest"),
    "slimming": scales,
    "uniform": uniform,
    "guided": guided,
    "thinet": by_samples(reconstruction.prune_by_thinet),
    "regression": by_samples(reconstruction.prune_by_regression),
    "l1_random": by_norm("random"),
    "l1_smallest": by_norm("smallest"),
    "random_widths": random_widths,
    "ticket": ticket,
    "soft": soft,
}
BY_FILTERS = ("l1_norm", "l1_random", "l1_smallest", "ticket", "soft")
# Where each method of the study is tested: above, or in a test of its own.
TESTED = {
    "l1-norm": "l1_norm",
    "l1-smallest": "l1_smallest",
    "l1-random": "l1_random",
    "thinet": "thinet",
    "regression": "regression",
    "slimming": "slimming",
    "stage-shares": "guided",
    "magnitude": "ticket",
    "magnitude-round": "ticket",
    "soft-filters": "soft",
}
# Whole branches go, and patterns within kernels leave every filter.
APART = {
    "structure-selection": "test_removed_branches_equal_factors_of_zero",
    "guided-patterns": "test_a_pattern_of_kernels_is_the_most_kept_positions",
}
OURS = ("vgg", "vgg_bn", "resnet", "preresnet", "densenet_bc", "densenet_selected", "bottleneck")
OTHERS = ("roadmap_end", "roadmap_depthwise", "convnext_atto", "densenet")
# What a method does not have to work on, and what it says then.
REFUSALS = {
    ("slimming", "roadmap_end"): "no channels with a BatchNorm can go",
    ("slimming", "convnext_atto"): "no channels with a BatchNorm can go",
}


# Every method on two networks, our own and a traced one, and two methods on every network; the
# other pairs are walked where there is time.
PAIRS = [
    pytest.param(
        method,
        family,
        marks=()
        if family in ("vgg_bn", "densenet") or method in ("slimming", "l1_norm")
        else pytest.mark.exhaustive,
    )
    for method, family in itertools.product(METHODS, [*OURS, *OTHERS])
]


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_removal_equals_masking(method: str, family: str) -> None:
    net: nn.Module = foreign(family) if family in FOREIGN else small(SMALL[family])
    size = 32 if family in FOREIGN else 16
    x, groups = pictures(3, size), groups_of(net, (3, size, size))
    if method in BY_FILTERS and not any(group.producers for group in groups):
        assert METHODS[method](net, groups, x) == {}  # selections have no filters
        return
    if (method, family) in REFUSALS:
        with pytest.raises(UserError, match=REFUSALS[method, family]):
            METHODS[method](net, groups, x)
        return
    kept = METHODS[method](net, groups, x)
    widths = {group.name: group.width for group in groups}
    assert any(len(channels) < widths[name] for name, channels in kept.items())
    narrow = remove(net, kept, (3, size, size))
    mask(net, kept, (3, size, size))
    assert net(x).std() > 1e-3
    assert torch.allclose(narrow(x), net(x), rtol=1e-9, atol=1e-11)


def test_every_method_of_the_study_is_tested() -> None:
    assert sorted(all_methods()) == sorted([*TESTED, *APART])
    assert set(TESTED.values()) <= set(METHODS)
    others = (Path(__file__).parent / "test_structures.py").read_text(encoding="utf-8")
    assert all(f"def {test}(" in others for test in APART.values())
