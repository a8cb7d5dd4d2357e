"""Every method on every family: the narrower network has the outputs of the masked one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.pruning_nets import FOREIGN, SMALL, foreign, pictures, small

from convnext_study.errors import UserError
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import Group, Kept, kept_of, widths_left
from convnext_study.studies.pruning.methods import designed, magnitude
from convnext_study.studies.pruning.prune import MASKS, METHODS, MethodArgs, Trained, all_methods
from convnext_study.studies.pruning.removal import groups_of, mask, remove

OURS = ("vgg", "vgg_bn", "resnet", "preresnet", "densenet_bc", "densenet_selected", "bottleneck")
OTHERS = ("roadmap_end", "roadmap_depthwise", "convnext_atto", "densenet")
FITTED = ("random-widths", "stage-shares")  # widths that no method of the network's own chose
# Whole branches go, and patterns within kernels leave every filter: tests of their own.
APART = {
    "structure-selection": "test_removed_branches_equal_factors_of_zero",
    "guided-patterns": "test_a_pattern_of_kernels_is_the_most_kept_positions",
}
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
        if family in ("vgg_bn", "densenet") or method in ("slimming", "l1-norm")
        else pytest.mark.exhaustive,
    )
    for method, family in itertools.product(
        [*METHODS, *(name for name in MASKS if name not in APART), *FITTED], [*OURS, *OTHERS]
    )
]


def fitted(trained: Trained, method: str) -> Kept:
    """Widths of half the budget: drawn at random, or of a network whose ends lost most."""
    net, groups, image = trained.net, trained.groups, trained.image_size
    if method == "stage-shares":
        kept = {groups[0].name: [0], groups[-1].name: [0]}
        shares = designed.layer_shares(groups, designed.stage_shares(groups, kept))
        return kept_of(designed.widths_at(groups, shares))
    whole = designed.count_macs(net, {}, image)
    least = designed.count_macs(net, {group.name: 1 for group in groups}, image)
    shares = designed.random_shares(groups, seed=1)
    return kept_of(designed.fit_widths(net, groups, shares, (whole + least) // 2, image))


def emptied(trained: Trained, names: Sequence[str], args: MethodArgs) -> Kept:
    """The filters of which a mask leaves a weight; they can go once their shifts are zero too."""
    with torch.no_grad():
        for name in names:  # so small that magnitude pruning takes them whole
            trained.net.get_parameter(f"{name}.weight")[::2] *= 1e-6
    held = MASKS[args.method](trained, args)
    magnitude.apply_masks(trained.net, held)
    return {
        name: held[f"{name}.weight"].flatten(1).any(1).nonzero().flatten().tolist() or [0]
        for name in names
        if f"{name}.weight" in held
    }


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_removal_equals_masking(method: str, family: str) -> None:
    net: Any = foreign(family) if family in FOREIGN else small(SMALL[family])
    size = 32 if family in FOREIGN else 16
    x, image = pictures(3, size), (3, size, size)
    groups = groups_of(net, image)
    own = [group for group in groups if group.producers]
    if method in ("thinet", "regression"):  # two that a layer reads whole: each takes its time
        own = [group for group in groups if is_read_by_layers(group)][-2:]
    trained = Trained(net, ModelRef(builder="none", args={}), image, lambda count: [x], seed=3)
    args = MethodArgs(method=method, widths=widths_left(own, 0.5), ratio=0.5)
    if (method, family) in REFUSALS:
        with pytest.raises(UserError, match=REFUSALS[method, family]):
            METHODS[method](trained, args)
        return
    if method in FITTED:
        kept = fitted(trained, method)
    elif method in MASKS:
        kept = emptied(trained, [group.name for group in own], args)
    else:
        kept = METHODS[method](trained, args)
    if not own and method != "slimming":
        assert kept == {} or method in FITTED  # selections have no filters
    else:
        widths = {group.name: group.width for group in groups}
        assert any(len(channels) < widths[name] for name, channels in kept.items())
    narrow = remove(net, kept, image)
    mask(net, kept, image)
    assert net(x).std() > 1e-3
    assert torch.allclose(narrow(x), net(x), rtol=1e-9, atol=1e-11)


def is_read_by_layers(group: Group) -> bool:
    return not group.concatenated and all(repeat == 1 for _, repeat in group.consumers)


def test_every_method_of_the_study_is_tested() -> None:
    assert {*all_methods()} == {*METHODS, *MASKS, *APART, "stage-shares"}
    others = (Path(__file__).parent / "test_structures.py").read_text(encoding="utf-8")
    assert all(f"def {test}(" in others for test in APART.values())
