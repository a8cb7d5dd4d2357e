"""The methods' rules on given values, ties included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from support.pruning_nets import RESNET, SMALL, VGG, VGG_LINEAR, pictures, small
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning import published
from convnext_study.studies.pruning.channel_groups import (
    Group,
    PruningError,
    narrowed,
    spec_groups,
    widths_left,
    widths_of,
)
from convnext_study.studies.pruning.costs import Images, budget_flops, scratch_b_epochs, untrained
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.methods import architectures, magnitude
from convnext_study.studies.pruning.methods.magnitude import (
    conv_weights,
    draw_masked,
    keep_filters,
    magnitude_masks,
)
from convnext_study.studies.pruning.published import get_network, networks
from convnext_study.studies.pruning.removal import find_groups, own_ref
from convnext_study.studies.pruning.spec import Spec, VggSpec

IMAGE, CIFAR = (3, 16, 16), (3, 32, 32)


def given_filters(spec: Spec, values: Sequence[float]) -> Any:
    net: Any = make_network(spec, num_classes=5)
    with torch.no_grad():
        for row, value in zip(net.stem.conv.weight, values, strict=True):
            row.fill_(value)
    return net


def test_l1_keeps_the_largest_in_their_old_order_and_the_earlier_of_equal_ones() -> None:
    net = given_filters(VGG, [0.1, -0.3, 0.2, 0.3, -0.2, 0.0])
    groups = find_groups(net, IMAGE).groups

    def kept(width: int, **kwargs: Any) -> list[int]:
        return keep_filters(net, groups, {"stem.conv": width}, **kwargs)["stem.conv"]

    assert kept(3) == [1, 2, 3]
    assert kept(4) == [1, 2, 3, 4]
    assert kept(3, choose="smallest") == [0, 2, 5]
    assert kept(6) == [0, 1, 2, 3, 4, 5]
    assert kept(3, choose="random") == kept(3, choose="random") != kept(3)
    draws = {tuple(kept(3, choose="random", seed=seed)) for seed in range(8)}
    assert len(draws) > 2
    assert [widths_left(groups, gone)["stem.conv"] for gone in (0.0, 0.3, 0.5, 0.9)] == [6, 4, 3, 1]
    with pytest.raises(PruningError, match=r"^stem\.conv: all of its 6 channels would be removed"):
        kept(0)
    with pytest.raises(PruningError, match=r"^head\.fc: has no channels to prune"):
        keep_filters(net, groups, {"head.fc": 2})
    with pytest.raises(PruningError, match=r"^stem\.conv: has 6 channels, so 7 cannot be kept"):
        keep_filters(net, groups, {"stem.conv": 7})
    preresnet = small(SMALL["preresnet"])
    with pytest.raises(PruningError, match=r"select1: selects channels and has no filters"):
        keep_filters(
            preresnet, find_groups(preresnet, IMAGE).groups, {"stages.0.blocks.0.select1": 1}
        )


@pytest.mark.parametrize("name", [name for name, one in networks().items() if "rule" in one.stated])
def test_the_rule_gives_the_published_widths(name: str) -> None:
    pruned = get_network(name)
    whole, rule = get_network(str(pruned.of)), pruned.stated["rule"]
    net = make_network(whole.spec)
    groups = spec_groups(whole.spec)
    first = min(group.stage for group in groups)
    ratios = {
        group: rule["ratios"][group.stage - first]
        for number, group in enumerate(groups, start=1)
        if 2 * number not in rule["skip"]
    }
    widths = {group.name: int(group.width * (1 - ratio)) for group, ratio in ratios.items()}
    kept = keep_filters(net, groups, widths)
    assert keep_filters(net, groups, widths_of(pruned.spec)) == {
        **{group.name: list(range(group.width)) for group in groups},
        **kept,
    }
    assert narrowed(whole.spec, kept) == pruned.spec


def given_scales(scales: Sequence[float]) -> tuple[nn.Module, tuple[Group, ...]]:
    """Two layers of 4 and 6 channels."""
    net: Any = make_network(VggSpec(widths=(4, 6)), num_classes=2)
    with torch.no_grad():
        net.stem.norm.weight.copy_(torch.tensor(scales[:4]))
        net.stages[0].blocks[0].norm.weight.copy_(torch.tensor(scales[4:]))
    return net, find_groups(net, IMAGE).groups


FIRST, SECOND = "stem.conv", "stages.0.blocks.0.conv"


def test_slimming_keeps_what_is_strictly_greater() -> None:
    net, groups = given_scales([0.9, -0.8, 0.1, 0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 1.0])
    kept = architectures.keep_channels(net, groups, 0.4)
    assert kept == {FIRST: [0, 1], SECOND: [3, 4, 5]}
    assert sum(map(len, kept.values())) == 10 - int(10 * 0.4) - 1
    net, groups = given_scales([0.5, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.9])
    kept = architectures.keep_channels(net, groups, 0.2)  # all equal ones go together
    assert kept == {FIRST: [3], SECOND: [5]}


def test_a_layer_that_slimming_would_empty() -> None:
    net, groups = given_scales([0.1, 0.2, 0.3, 0.2, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    kept = architectures.keep_channels(net, groups, 0.5)
    assert kept == {FIRST: [2], SECOND: [0, 1, 2, 3]}
    with pytest.raises(UserError, match="no prunable channels have a BatchNorm"):
        architectures.keep_channels(small(SMALL["vgg_biased"]), (), 0.5)


def test_the_pool_is_every_batchnorm_and_the_published_lists_keep_as_many() -> None:
    for name in ("vgg19-slim", "preresnet164", "densenet40"):
        whole = get_network(name)
        pool = sum(group.width for group in spec_groups(whole.spec) if group.norms)
        assert pool == whole.stated["bn_channels"]
    for network in networks().values():
        if "slimming_ratio" in network.stated:
            total = get_network(str(network.of)).stated["bn_channels"]
            left = sum(group.width for group in spec_groups(network.spec))
            assert left == total - int(total * network.stated["slimming_ratio"]) - 1


def test_the_penalty_is_the_subgradient_of_the_sum_of_sizes() -> None:
    net = small(VGG_LINEAR).train()
    with torch.no_grad():
        net.stem.norm.weight.copy_(torch.tensor([0.5, -0.5, 0.0, 1.0, -2.0, 3.0]))
    net(pictures(4)).square().sum().backward()
    before = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    architectures.add_penalty_gradient(net, 0.01)
    norms = {name for name, _ in net.named_parameters() if name.endswith("norm.weight")}
    assert len(norms) == 4
    for name, weight in net.named_parameters():
        penalty = 0.01 * weight.sign() if name in norms else torch.zeros_like(weight)
        assert torch.equal(weight.grad, before[name] + penalty), name


def given_weights(values: Sequence[float]) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 4, 1), nn.Linear(3, 3))
    with torch.no_grad():
        net.get_parameter("0.weight").copy_(torch.tensor(values[:2]).view(2, 1, 1, 1))
        net.get_parameter("1.weight").copy_(torch.tensor(values[2:]).view(4, 2, 1, 1))
    return net


def count_kept(masks: Mapping[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


TEN = (0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0)


def test_magnitude_is_one_pool_of_convolutions_and_strictly_greater() -> None:
    net = given_weights(TEN)
    masks = magnitude_masks(net, 0.3)
    assert list(masks) == ["0.weight", "1.weight"]
    assert count_kept(masks) == 10 - int(10 * 0.3) - 1
    assert masks["0.weight"].flatten().tolist() == [False, False]
    assert masks["1.weight"].flatten().tolist() == [False, False, *[True] * 6]
    equal = magnitude_masks(given_weights([0.1, 0.5, 0.5, 0.5, 0.5, *[0.9] * 5]), 0.2)
    assert count_kept(equal) == 5
    with pytest.raises(UserError, match="no convolutions"):
        magnitude_masks(nn.Linear(2, 2), 0.5)


@pytest.mark.parametrize(
    "entry", published.tables()["magnitude"][1:3], ids=lambda one: one["network"]
)
def test_the_stated_numbers_of_kept_weights(entry: Mapping[str, Any]) -> None:
    net = make_network(get_network(entry["network"]).spec).double()
    total = sum(weight.numel() for weight in conv_weights(net).values())
    assert total == entry["conv_weights"]
    generator = torch.Generator().manual_seed(0)
    order = (torch.randperm(total, generator=generator) + 1).double()
    place = 0
    for weight in conv_weights(net).values():
        weight.copy_(order[place : place + weight.numel()].view(weight.shape))
        place += weight.numel()
    for ratio, kept in zip(entry["ratio"], entry["kept"], strict=True):
        assert count_kept(magnitude_masks(net, ratio)) == kept
    for other in published.tables()["magnitude"]:
        for ratio, kept in zip(other["ratio"], other["kept"], strict=True):
            assert kept == other["conv_weights"] - int(other["conv_weights"] * ratio) - 1


def test_scratch_weights_under_a_mask() -> None:
    net = nn.Conv2d(64, 64, 3, bias=False)
    masks = {"weight": torch.arange(net.weight.numel()).view_as(net.weight) % 4 == 0}
    draw_masked(net, masks, torch.Generator().manual_seed(0))
    assert net.weight[~masks["weight"]].abs().max() == 0
    expected = (2 * 64 / count_kept(masks)) ** 0.5
    assert net.weight[masks["weight"]].std().item() == pytest.approx(expected, rel=0.03)


def test_budgets_count_only_weights_that_are_left() -> None:
    net = small(RESNET)
    whole = budget_flops(net, IMAGE)
    assert whole - budget_flops(net, IMAGE, {"stem.conv.weight": 6}) == 2 * 6 * 26 * 16 * 16
    with torch.no_grad():  # a zero under no mask is a weight
        net.stem.conv.weight.zero_()
    assert budget_flops(net, IMAGE) == whole
    assert scratch_b_epochs(300, 100, 90) == 270
    assert scratch_b_epochs(300, 100, 90, capped=True) == 180
    assert scratch_b_epochs(199, 100, 90, capped=True) == 179


@pytest.mark.parametrize("family", ["vgg", "preresnet"])
def test_controls_meet_the_budget(family: str) -> None:
    whole = untrained(own_ref(SMALL[family]), Images(16, 5))
    groups, macs = whole.sound.groups, whole.cost.macs
    uniform, one, again, other = (
        {group.name: 1.0 for group in groups},
        *(architectures.random_shares(groups, seed) for seed in (0, 0, 1)),
    )
    assert one == again != other
    for shares in (uniform, one):
        widths = architectures.fit_widths(whole, groups, shares, macs // 2)
        assert whole.narrowed(widths).cost.macs == pytest.approx(macs // 2, rel=0.15)
        assert list(widths) == [group.name for group in groups]
    unpruned = {group.name: group.width for group in groups}
    assert architectures.fit_widths(whole, groups, uniform, macs) == unpruned
    with pytest.raises(UserError, match=r"^macs: .*; this network can have "):
        architectures.fit_widths(whole, groups, uniform, macs + 1)


def test_criteria_rank_filters_by_their_rules() -> None:
    net: Any = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    group = Group("0", 3, ("0",), ("1",), (("2", 1),))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        net[1].weight.copy_(torch.tensor([3.0, 0.0, 0.0]))
        net[2].weight.copy_(torch.tensor([[0.0, 2.0, 0.0]] * 2).view(2, 3, 1, 1))
    net[0].weight.grad = torch.tensor([2.0, -3.0, 0.5]).view(3, 1, 1, 1)
    assert magnitude.l1_norm(net, group).tolist() == [1, 2, 4]
    assert magnitude.geometric_median(net, group).tolist() == pytest.approx([4, 3, 5])
    squares = [1 + 9, 4 + 8, 16 + 1]
    assert magnitude.group_norm(net, group).square().tolist() == pytest.approx(squares)
    assert magnitude.taylor(net, group).tolist() == [4, 36, 4]
    kept = keep_filters(net, [group], {"0": 2}, score=magnitude.geometric_median)
    assert kept == {"0": [0, 2]}  # the middle one is what the others can make


def test_lamp_scores_and_leaves_a_weight_in_every_layer() -> None:
    weight = torch.tensor([[3.0, -1.0], [2.0, 0.0]]).view(2, 2, 1, 1)
    scores = magnitude.lamp(weight).flatten().tolist()
    assert scores == pytest.approx([1, 1 / 14, 4 / 13, 0])
    net: Any = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[1].weight.copy_(weight * 1e-3)
    by_size = magnitude_masks(net, 0.7)
    assert not by_size["1.weight"].any()
    lamp = magnitude_masks(net, 0.7, size=magnitude.lamp)
    assert [int(mask.sum()) for mask in lamp.values()] == [1, 1]
