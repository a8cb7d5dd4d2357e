"""Soft filter pruning, structure selection, guided and transferred designed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.nets import build
from support.pruning_nets import PREACT, RESNET, VGG, pictures, small
from torch import nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning import published
from convnext_study.studies.pruning.channel_groups import (
    PruningError,
    kept_of,
    narrowed,
    spec_groups,
)
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.methods import designed, selection
from convnext_study.studies.pruning.methods.magnitude import (
    apply_masks,
    conv_weights,
    soft_filter_masks,
)
from convnext_study.studies.pruning.published import get_network
from convnext_study.studies.pruning.removal import groups_of
from convnext_study.studies.pruning.spec import PreActSpec, ResNetSpec, VggSpec

IMAGE = (3, 16, 16)
SMALL_PREACT = PREACT.replace(widths=(4, 5, 6, 7), stages=((2, True),) * 4)


# Soft filter pruning


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
    with pytest.raises(UserError, match=r"^ratio: 2; "):
        soft_filter_masks(net, 2)


# Sparse structure selection


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
    assert selection.kept_branches({"block": factor}) == {"block": value > 0}


def test_the_penalty_alone_empties_a_branch_that_does_nothing() -> None:
    net = small(SMALL_PREACT).train()
    factors = selection.add_factors(net)
    assert list(factors) == [f"stages.{s}.blocks.{b}" for s in range(4) for b in range(2)]
    idle = net.get_submodule("stages.1.blocks.1.conv3")
    with torch.no_grad():
        idle.weight.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        (1e-6 * net(pictures(4)).square().mean()).backward()
        idle.weight.grad.zero_()
        selection.proximal_step(factors, lr=1.0, penalty=0.01)
        optimizer.step()
    assert factors["stages.1.blocks.1"].weight.item() == 0
    saved = {key for key in net.state_dict() if "velocity" in key}
    assert len(saved) == 8  # a checkpoint holds all that the next step needs


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
    kept = selection.kept_branches(factors)
    assert [name for name, stays in kept.items() if not stays] == gone
    narrow = selection.remove_branches(net, kept)
    x = pictures(3)
    assert net(x).std() > 1e-3
    assert torch.allclose(narrow(x), net(x), rtol=1e-9, atol=1e-11)
    assert sum(w.numel() for w in narrow.parameters()) < sum(w.numel() for w in net.parameters())
    with pytest.raises(PruningError, match=r"^stages\.0\.blocks\.7: no such block"):
        selection.branch_spec(narrow.spec, {"stages.0.blocks.7": False})  # type: ignore[arg-type]


def test_the_published_networks_are_branches_left_of_the_whole_one() -> None:
    whole = get_network("preact-resnet50").spec
    assert isinstance(whole, PreActSpec)
    names = [
        f"stages.{stage}.blocks.{block}"
        for stage, (count, _) in enumerate(whole.stages)
        for block in range(count)
    ]
    for name in ("sss-resnet41", "sss-resnet32", "sss-resnet26"):
        pruned = get_network(name).spec
        assert isinstance(pruned, PreActSpec)
        kept: dict[str, bool] = {}
        for stage, (count, first) in enumerate(pruned.stages):
            blocks = [one for one in names if one.startswith(f"stages.{stage}.")]
            others = count - first
            kept |= {one: at == 0 and first for at, one in enumerate(blocks)}
            kept |= {one: at < others for at, one in enumerate(blocks[1:])}
        assert selection.branch_spec(whole, kept) == pruned


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
        selection.remove_branches(net, {})
    with pytest.raises(UserError, match="no residual branches"):
        selection.add_factors(small(VGG))


# Guided and transferred architectures


def test_stage_shares_are_means_over_layers() -> None:
    groups = groups_of(small(RESNET), IMAGE)
    kept = {"stages.0.blocks.0.conv1": [0, 1, 2], "stages.2.blocks.1.conv1": [0, 1, 2]}
    shares = designed.stage_shares(groups, kept)
    assert shares == {0: (3 / 6 + 1) / 2, 1: 1.0, 2: (1 + 3 / 9) / 2}
    widths = designed.widths_at(groups, designed.layer_shares(groups, shares))
    assert widths["stages.0.blocks.0.conv1"] == round(6 * 0.75)
    assert widths["stages.1.blocks.0.conv1"] == 7


def test_statistics_of_vgg16_design_vgg19() -> None:
    vgg16, vgg19 = (
        VggSpec(widths=tuple(get_network(name).stated["widths"]))
        for name in ("vgg16", "vgg19-slim")
    )
    groups = spec_groups(vgg16)
    kept = {group.name: range(group.width // 2) for group in groups if group.stage >= 3}
    shares = designed.stage_shares(groups, kept)
    others = spec_groups(vgg19)
    widths = designed.widths_at(others, designed.layer_shares(others, shares))
    deeper = narrowed(vgg19, kept_of(widths))
    assert isinstance(deeper, VggSpec)
    wide, narrow = (64, 64, "M", 128, 128, "M", *(256,) * 4), (256,) * 4
    assert deeper.widths == (*wide, "M", *narrow, "M", *narrow)
    with pytest.raises(UserError, match=r"^stage 0 of stem\.conv: no share"):
        designed.layer_shares(others, {})


def test_a_pattern_of_kernels_is_the_most_kept_positions() -> None:
    cross = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    masks = {
        "a.weight": cross.expand(4, 2, 3, 3).clone(),
        "b.weight": torch.ones(2, 3, 3, 3, dtype=torch.bool) & cross,
        "c.weight": torch.ones(4, 4, 1, 1, dtype=torch.bool),
    }
    masks["a.weight"][0, 0, 0, 0] = True
    layers = {0: ["a", "b"], 1: ["c"]}
    found = designed.guided_sparsification(layers, masks)
    for name in ("a", "b"):
        assert torch.equal(found[f"{name}.weight"], cross.expand_as(masks[f"{name}.weight"]))
    assert found["c.weight"] is masks["c.weight"]
    net = nn.Conv2d(2, 4, 3)
    apply_masks(net, {"weight": found["a.weight"]})
    assert torch.equal(net.weight[1, 1] != 0, cross)
