"""Every method on every family: the narrower network has the outputs of the masked one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from support.pruning_nets import FOREIGN, SMALL, foreign, pictures, small
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.apply import ImageSize, groups_of, mask, remove
from convnext_study.studies.pruning.groups import Group, Kept, widths_left
from convnext_study.studies.pruning.methods import (
    architectures,
    controls,
    regression,
    slimming,
    thinet,
)
from convnext_study.studies.pruning.methods.l1_norm import keep_filters

Method = Callable[[Any, Sequence[Group], Tensor], Kept]


def size_of(images: Tensor) -> ImageSize:
    _, channels, height, width = images.shape
    return channels, height, width


def half_of_the_filters(net: Any, groups: Sequence[Group], _: Tensor) -> Kept:
    ratios = {group.name: 0.5 for group in groups if group.producers}
    return keep_filters(net, groups, widths_left(groups, ratios))


def scales(net: Any, groups: Sequence[Group], _: Tensor) -> Kept:
    return slimming.keep_channels(net, groups, 0.4, keep_one=True)


def uniform(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    image = size_of(images)
    whole = controls.count_macs(net, {}, image)
    least = controls.count_macs(net, {group.name: 1 for group in groups}, image)
    return controls.kept_of(controls.uniform_widths(net, groups, (whole + least) // 2, image))


def guided(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    kept = {groups[0].name: [0], groups[-1].name: [0]}
    shares = architectures.stage_shares(groups, kept)
    return controls.kept_of(architectures.design_widths(groups, shares))


def two_layers(groups: Sequence[Group]) -> Sequence[Group]:
    """Two of those that a layer reads without flattening the map: each takes its time."""
    return [
        group
        for group in groups
        if not group.concatenated and all(repeat == 1 for _, repeat in group.consumers)
    ][-2:]


def by_thinet(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    widths = {group.name: max(group.width // 2, 1) for group in two_layers(groups)}
    return thinet.prune(net, groups, widths, [images], size_of(images))


def by_regression(net: Any, groups: Sequence[Group], images: Tensor) -> Kept:
    widths = {group.name: max(group.width // 2, 1) for group in two_layers(groups)}
    return regression.prune(net, groups, widths, [images], size_of(images))


METHODS: dict[str, Method] = {
    "l1_norm": half_of_the_filters,
    "slimming": scales,
    "uniform": uniform,
    "guided": guided,
    "thinet": by_thinet,
    "regression": by_regression,
}
OURS = ("vgg", "vgg_bn", "resnet", "preresnet", "densenet_bc", "densenet_selected", "bottleneck")
OTHERS = ("roadmap_end", "roadmap_depthwise", "convnext_atto", "densenet")
# What a method does not have to work on, and what it says then.
REFUSALS = {
    ("slimming", "roadmap_end"): "no channels with a BatchNorm can go",
    ("slimming", "convnext_atto"): "no channels with a BatchNorm can go",
}


@pytest.mark.parametrize("family", [*OURS, *OTHERS])
@pytest.mark.parametrize("method", METHODS)
def test_removal_equals_masking(method: str, family: str) -> None:
    net: nn.Module = foreign(family) if family in FOREIGN else small(SMALL[family])
    size = 32 if family in FOREIGN else 16
    x, groups = pictures(3, size), groups_of(net, (3, size, size))
    if method == "l1_norm" and not any(group.producers for group in groups):
        assert half_of_the_filters(net, groups, x) == {}  # selections have no filters
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
