"""Soft filters, structure selection, designed architectures, ThiNet and regression."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from support.nets import build
from support.pruning_nets import BOTTLENECK_SELECTED, PREACT, RESNET, VGG, mask, pictures, small
from torch import Tensor, nn

from convnext_study.data.rng import generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning import published
from convnext_study.studies.pruning.channel_groups import kept_of, narrowed, spec_groups
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.methods import architectures, magnitude, selection
from convnext_study.studies.pruning.methods import reconstruction as method
from convnext_study.studies.pruning.methods.magnitude import (
    apply_masks,
    conv_weights,
    soft_filter_masks,
)
from convnext_study.studies.pruning.published import get_network
from convnext_study.studies.pruning.removal import find_groups
from convnext_study.studies.pruning.spec import PreActSpec, ResNetSpec, VggSpec

IMAGE = (3, 16, 16)
SMALL_PREACT = PREACT.replace(widths=(4, 5, 6, 7), stages=((2, True),) * 4)


@pytest.mark.parametrize("depth", [20, 110])
def test_soft_filter_pruning_zeroes_as_many_as_stated(depth: int) -> None:
    stated = published.tables()["soft_filter_pruning"]
    spec = ResNetSpec(inner=tuple((width,) * ((depth - 2) // 6) for width in (16, 32, 64)))
    net = make_network(spec)
    for ratio in stated[f"resnet{depth}"]["ratio"]:
        masks = soft_filter_masks(net, ratio)
        zeroed = [masks[f"stages.{stage}.blocks.1.conv1.weight"] for stage in range(3)]
        counts = [int((~mask.flatten(1).any(1)).sum()) for mask in zeroed]
        assert counts == stated["filters_zeroed"][str(ratio)]


def test_the_smallest_filters_become_zero_and_train_on() -> None:
    net: Any = make_network(RESNET, num_classes=5)
    with torch.no_grad():
        for at, row in enumerate(net.stem.conv.weight):
            row.fill_([0.3, 0.1, 0.2, 0.1, 0.4, 0.1][at])
    masks = soft_filter_masks(net, 0.4)
    assert masks.keys() == conv_weights(net).keys()
    rows = masks["stem.conv.weight"].flatten(1)
    assert rows.all(1).tolist() == rows.any(1).tolist() == [True, False, True, False, True, True]
    apply_masks(net, masks)
    assert net.stem.conv.weight[[1, 3]].abs().max() == 0
    assert net.stem.conv.weight[5].abs().min() > 0
    nn.init.constant_(net.stem.norm.bias, 0.1)  # a ReLU passes no gradient at exactly zero
    net(pictures(4).float()).square().sum().backward()
    assert net.stem.conv.weight.grad[1].abs().max() > 0
    fresh = make_network(RESNET, num_classes=5)
    apply_masks(fresh, masks)
    assert all(torch.equal(one, masks[name]) for name, one in soft_filter_masks(fresh, 0.4).items())


def test_the_accelerated_proximal_step() -> None:
    factor = selection.Factor()
    value, velocity = 1.0, 0.0
    for gradient in (0.3, -0.2, 4.0, 7.0, -3.0, 0.0):
        factor.weight.grad = torch.tensor([gradient])
        selection.proximal_step({"block": factor}, lr=0.1, penalty=0.5)
        moved = value - 0.1 * gradient
        z = max(abs(moved) - 0.05, 0.0) * (1 if moved > 0 else -1)
        velocity = z - value + 0.9 * velocity
        value = max(0.0, z + 0.9 * velocity)
        assert factor.weight.item() == pytest.approx(value, abs=1e-6)
        assert factor.velocity.item() == pytest.approx(velocity, abs=1e-6)
        assert factor.weight.grad is None
    assert "velocity" in factor.state_dict(), "a checkpoint holds all that the next step needs"


@pytest.mark.parametrize(
    "gone", [["stages.0.blocks.0"], ["stages.1.blocks.1", "stages.3.blocks.0"]]
)
def test_removed_branches_equal_factors_of_zero(gone: list[str]) -> None:
    net = small(SMALL_PREACT)
    factors = selection.add_factors(net)
    with torch.no_grad():
        for place, factor in enumerate(factors.values()):
            factor.weight.fill_(0.5 + 0.1 * place)
        for name in gone:
            factors[name].weight.zero_()
    narrow = selection.remove_branches(net)
    x = pictures(3)
    assert net(x).std() > 1e-3
    assert torch.allclose(narrow(x), net(x), rtol=1e-9, atol=1e-11)
    assert sum(w.numel() for w in narrow.parameters()) < sum(w.numel() for w in net.parameters())


@pytest.mark.parametrize("name", ["sss-resnet41", "sss-resnet32", "sss-resnet26"])
def test_the_published_networks_are_branches_left_of_the_whole_one(name: str) -> None:
    narrow = {"widths": (2, 2, 2, 2)}
    whole, pruned = (get_network(one).spec.replace(**narrow) for one in ("preact-resnet50", name))
    assert isinstance(whole, PreActSpec) and isinstance(pruned, PreActSpec)
    net = make_network(whole, num_classes=5)
    factors = selection.add_factors(net)
    with torch.no_grad():
        for stage, (count, first) in enumerate(pruned.stages):
            left = [0] * first + [*range(1, count - first + 1)]
            for block in range(whole.stages[stage][0]):
                factors[f"stages.{stage}.blocks.{block}"].weight.fill_(float(block in left))
    left_over: Any = selection.remove_branches(net)
    assert left_over.spec == pruned


def test_factors_in_networks_of_timm_and_elsewhere() -> None:
    for name, kwargs in (
        ("resnet18", {"zero_init_last": False}),
        ("roadmap_nano_gelu", {"depths": (1, 1, 1, 1)}),
    ):
        net = build(name, num_classes=5, **kwargs).eval()
        x = pictures(2, 32).float()
        before = net(x)
        factors = selection.add_factors(net)
        assert torch.equal(net(x), before)
        with torch.no_grad():
            next(iter(factors.values())).weight.zero_()
        assert not torch.allclose(net(x), before, rtol=1e-4, atol=0)
    with pytest.raises(UserError, match="no spec of branches"):
        selection.remove_branches(net)
    with pytest.raises(UserError, match="no residual branches"):
        selection.add_factors(small(VGG))


def test_shares_are_means_over_the_layers_of_a_stage() -> None:
    groups = find_groups(small(RESNET), IMAGE).groups
    kept = {"stages.0.blocks.0.conv1": [0, 1, 2], "stages.2.blocks.1.conv1": [0, 1, 2]}
    shares = architectures.shares_by_stage(groups, groups, kept)
    assert [*shares.values()] == 2 * [(3 / 6 + 1) / 2] + 2 * [1.0] + 2 * [(1 + 3 / 9) / 2]
    widths = architectures.widths_at(groups, shares)
    assert widths["stages.0.blocks.0.conv1"] == round(6 * 0.75)
    assert widths["stages.1.blocks.0.conv1"] == 7


def test_statistics_of_vgg16_design_vgg19() -> None:
    vgg16, vgg19 = (
        VggSpec(widths=tuple(get_network(name).stated["widths"]))
        for name in ("vgg16", "vgg19-slim")
    )
    groups, others = spec_groups(vgg16), spec_groups(vgg19)
    kept = {group.name: range(group.width // 2) for group in groups if group.stage >= 3}
    shares = architectures.shares_by_stage(others, groups, kept)
    deeper = narrowed(vgg19, kept_of(architectures.widths_at(others, shares)))
    assert isinstance(deeper, VggSpec)
    wide, narrow = (64, 64, "M", 128, 128, "M", *(256,) * 4), (256,) * 4
    assert deeper.widths == (*wide, "M", *narrow, "M", *narrow)
    with pytest.raises(UserError, match=r"^stage 0 of stem\.conv: its share"):
        architectures.shares_by_stage(others, (), {})


def test_a_pattern_of_kernels_is_the_most_kept_positions() -> None:
    cross = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    masks = {
        "a.weight": cross.expand(4, 2, 3, 3).clone(),
        "b.weight": torch.ones(2, 3, 3, 3, dtype=torch.bool) & cross,
        "c.weight": torch.ones(4, 4, 1, 1, dtype=torch.bool),
    }
    masks["a.weight"][0, 0, 0, 0] = True
    layers = {0: ["a", "b"], 1: ["c"]}
    found = magnitude.guided_sparsification(layers, masks)
    for name in ("a", "b"):
        assert torch.equal(found[f"{name}.weight"], cross.expand_as(masks[f"{name}.weight"]))
    assert found["c.weight"] is masks["c.weight"]
    net = nn.Conv2d(2, 4, 3)
    apply_masks(net, {"weight": found["a.weight"]})
    assert torch.equal(net.weight[1, 1] != 0, cross)


LAYER = "stages.1.blocks.0.conv1"


def group_of(net: Any, name: str) -> Any:
    return next(group for group in find_groups(net, IMAGE).groups if group.name == name)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (RESNET, LAYER),
        (VGG, "stages.0.blocks.0.conv"),
        (VGG, "stages.1.blocks.1.conv"),  # read by a linear layer
        (BOTTLENECK_SELECTED, "layer2.0.conv1"),  # by one with a stride
        (BOTTLENECK_SELECTED, "layer2.0.select1"),  # some channels of a stream
    ],
)
def test_what_channels_add_makes_up_the_outputs(spec: Any, name: str) -> None:
    net = small(spec)
    if name == LAYER:
        same = net.get_submodule(LAYER.replace("conv1", "conv2"))
        same.padding, same.bias = "same", nn.Parameter(torch.ones(len(same.weight)).double())
    group, images = group_of(net, name), [pictures(2), pictures(3)]
    reader = method.reader_of(net, group)
    found = method.sample(net, reader, images, generator(0))
    assert found.patches.shape[:2] == (5 * method.POSITIONS, group.width)
    summed = torch.einsum("rcij,ocij->ro", found.patches, method.kernels(reader))
    assert torch.allclose(summed, found.outputs, atol=1e-10)


def test_thinet_is_greedy_and_takes_the_earlier_of_equal_columns() -> None:
    x = torch.randn(30, 6, generator=generator(1), dtype=torch.float64)
    x[:, 4] = x[:, 1]
    removed: list[int] = []
    while len(removed) < 3:  # by trying every column
        left = [column for column in range(6) if column not in removed]
        costs = [x[:, [*removed, column]].sum(1).norm().item() for column in left]
        removed.append(left[min(range(len(left)), key=lambda at: round(costs[at], 9))])
    assert method.choose_greedily(x, 3) == sorted(set(range(6)) - set(removed))
    zero = x.clone()
    zero[:, 3] = 0
    assert 3 not in method.choose_greedily(zero, 5)
    assert method.choose_greedily(torch.zeros(4, 3), 1) == [2]


def test_thinet_scales_what_is_left() -> None:
    net, other, reader = small(RESNET), "stages.2.blocks.1.conv1", "stages.1.blocks.0.conv2.weight"
    again, before = copy.deepcopy(net), net.get_parameter(reader).clone()
    layers = [(group_of(net, LAYER), 3), (group_of(net, other), 6)]
    kept = method.prune_by_thinet(net, layers, [pictures(8)])
    assert {name: len(channels) for name, channels in kept.items()} == {LAYER: 3, other: 6}
    factors = (net.get_parameter(reader) / before)[:, kept[LAYER]]
    assert torch.allclose(factors, factors[:1, :, :1, :1].expand_as(factors))
    assert (factors - 1).abs().max() > 1e-3
    assert method.prune_by_thinet(again, layers[:1], [pictures(8)])[LAYER] == kept[LAYER]


def test_lasso_finds_the_channels_that_matter() -> None:
    parts = torch.randn(400, 8, generator=generator(3), dtype=torch.float64)
    parts[:, [0, 3, 6]] *= 0.01
    assert method.choose_by_lasso(parts, parts.sum(1), 5) == [1, 2, 4, 5, 7]
    assert method.choose_by_lasso(parts, parts.sum(1), 8) == list(range(8))
    equal = parts[:, :1].expand(-1, 6)  # no penalty leaves three of them
    assert len(method.choose_by_lasso(equal, equal.sum(1), 3)) == 3


def test_regression_fits_the_unpruned_outputs_anew() -> None:
    net, images = small(RESNET), [pictures(64)]
    whole, masked = copy.deepcopy(net), copy.deepcopy(net)
    group = group_of(net, LAYER)
    kept = method.prune_by_regression(net, [(group, 4)], images)
    assert len(kept[LAYER]) == 4  # 1.1 times as many is none more
    mask(masked, kept, IMAGE)
    errors = []
    for one in (net, masked):
        reader, reference = (method.reader_of(net_, group) for net_ in (one, whole))
        found = method.sample(one, reader, images, generator(9))
        wanted = method.sample(whole, reference, images, found.places)
        errors.append((found.outputs - wanted.outputs).norm().item())
    assert errors[0] < 0.95 * errors[1]


def test_sampling_does_not_depend_on_the_global_state() -> None:
    net, images = small(RESNET), [pictures(2)]
    group = group_of(net, LAYER)
    draws: list[Tensor] = []
    for seed, _ in itertools.product((0, 1), range(2)):
        torch.manual_seed(len(draws))
        draws.append(method.contributions(net, group, images, seed))
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[2], draws[3])
    assert not torch.equal(draws[0], draws[2])
