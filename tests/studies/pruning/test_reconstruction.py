"""ThiNet and regression-based reconstruction: their samples, choices and refits."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from support.pruning_nets import BOTTLENECK_SELECTED, RESNET, VGG, pictures, small
from torch import Tensor, nn

from convnext_study.data.rng import generator
from convnext_study.studies.pruning.channel_groups import PruningError
from convnext_study.studies.pruning.methods import reconstruction as method
from convnext_study.studies.pruning.removal import groups_of, mask

IMAGE = (3, 16, 16)
LAYER = "stages.1.blocks.0.conv1"


def group_of(net: Any, name: str) -> Any:
    return next(group for group in groups_of(net, IMAGE) if group.name == name)


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
    net = small(RESNET)
    before = copy.deepcopy(net)
    kept = method.prune_by_thinet(
        net,
        groups_of(net, IMAGE),
        {LAYER: 3, "stages.2.blocks.1.conv1": 6},
        [pictures(8)],
        IMAGE,
    )
    assert {name: len(channels) for name, channels in kept.items()} == {
        LAYER: 3,
        "stages.2.blocks.1.conv1": 6,
    }
    reader = "stages.1.blocks.0.conv2.weight"
    factors = (
        net.get_parameter(reader)[:, kept[LAYER]] / before.get_parameter(reader)[:, kept[LAYER]]
    )
    assert torch.allclose(factors, factors[:1, :, :1, :1].expand_as(factors))
    assert (factors - 1).abs().max() > 1e-3
    again = copy.deepcopy(before)
    widths = {LAYER: 3}
    assert (
        method.prune_by_thinet(again, groups_of(again, IMAGE), widths, [pictures(8)], IMAGE)[LAYER]
        == kept[LAYER]
    )


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
    kept = method.prune_by_regression(net, [group], {LAYER: 4}, images, IMAGE)
    assert len(kept[LAYER]) == 4  # 1.1 times as many is none more
    mask(masked, kept, IMAGE)
    errors = []
    for one in (net, masked):
        reader, reference = (method.reader_of(net_, group) for net_ in (one, whole))
        found = method.sample(one, reader, images, generator(9))
        wanted = method.sample(whole, reference, images, found.places)
        errors.append((found.outputs - wanted.outputs).norm().item())
    assert errors[0] < 0.95 * errors[1]


def test_errors_name_the_layer() -> None:
    net = small(VGG)
    groups = groups_of(net, IMAGE)
    with pytest.raises(PruningError, match=r"^stem\.conv: all of its 6 channels would go"):
        method.prune_by_thinet(net, groups, {"stem.conv": 0}, [pictures()], IMAGE)
    with pytest.raises(PruningError, match=r"^stem\.conv: all of its 6 channels would go"):
        method.prune_by_regression(net, groups, {"stem.conv": 0}, [pictures()], IMAGE)
    for prune in (method.prune_by_thinet, method.prune_by_regression):
        with pytest.raises(PruningError, match=r"^stem\.cnv: has no channels"):
            prune(net, groups, {"stem.cnv": 2}, [pictures()], IMAGE)
    flattening = small(VGG.__class__(widths=(4, "M", 4, "M"), head="4096", hidden=(5, 6)))
    last = next(g for g in groups_of(flattening, IMAGE) if g.name == "stages.0.blocks.0.conv")
    with pytest.raises(PruningError, match="not read by one convolution alone"):
        method.reader_of(flattening, last)
    same = nn.Conv2d(3, 3, 3, padding="same")
    with pytest.raises(PruningError, match="padding='same'"):
        method.sample(same, same, [torch.randn(1, 3, 8, 8)], generator(0))


def test_sampling_does_not_depend_on_the_global_state() -> None:
    net, images = small(RESNET), [pictures(2)]
    group = group_of(net, LAYER)
    draws: list[Tensor] = []
    for seed, _ in itertools.product((0, 1), range(2)):
        torch.manual_seed(len(draws))
        draws.append(method.contributions(net, group, images, seed))
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[2], draws[3])
    assert not torch.equal(draws[0], draws[2])
