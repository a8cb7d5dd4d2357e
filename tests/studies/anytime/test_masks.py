"""Masks and the fill: the reference's exact checks, gradients, and what stays as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.anytime_nets import anytime_net, images
from torch import nn

from convnext_study.studies.anytime.layer_cost import exit_macs
from convnext_study.studies.anytime.masks import (
    MaskedConv2d,
    SegmentMask,
    confidence,
    fill_skipped,
    mask_convolutions,
    radial_kernel,
    resized,
    unsure,
)
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.spec import published

CHECK = published()["mask_check"]
FILL = published()["fill"]
W18 = published()["backbone"]["w18"]["timm"]
IMAGE = (3, *CHECK["input"])


@pytest.fixture(scope="module")
def w18() -> AnytimeNet:
    return anytime_net(classes=19, backbone=W18, masks="confidence")


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return images(tuple(CHECK["input"]), 1)


def run_at(
    net: AnytimeNet, x: torch.Tensor, threshold: float
) -> tuple[list[torch.Tensor], list[int]]:
    net.threshold = threshold
    with torch.no_grad():
        outputs = list(net.run(x))
    channels, height, width = x.shape[1:]
    costs = net.layer_costs((channels, height, width))
    macs = exit_macs(costs, [one.computed for one in outputs])
    return [one.logits for one in outputs], macs


def test_all_half_or_nothing_of_the_maps_costs_what_the_reference_counts(
    w18: AnytimeNet, picture: torch.Tensor
) -> None:
    plain = anytime_net(classes=19, backbone=W18)
    w18.load_state_dict(plain.state_dict())
    logits, macs = run_at(w18, picture, 1.0)  # nothing is confident: the dense network
    assert macs == CHECK["nothing_confident"] == CHECK["macs"]
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(logits, plain(picture), strict=True))
    logits, macs = run_at(w18, picture, 0.0)  # everything is: exit 1
    assert macs == CHECK["everything_confident"]
    assert all(torch.equal(one, logits[0]) for one in logits)
    half = torch.zeros(1, 1, *(side // 4 for side in CHECK["input"]), dtype=torch.bool)
    half[..., : half.shape[-1] // 2] = True
    assert exit_macs(w18.layer_costs(IMAGE), [None, half, half, half]) == CHECK["half"]


@pytest.mark.parametrize("key", ["w18", "w48"])
def test_as_many_convolutions_are_masked_as_the_reference_counts(key: str) -> None:
    with torch.device("meta"):
        net = anytime_net(backbone=published()["backbone"][key]["timm"], masks="confidence")
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    masked = [conv for conv in convs if isinstance(conv, MaskedConv2d)]
    of_exit = [sum(conv.segment is one for conv in masked) for one in net.segments.values()]
    assert of_exit == published()["mask"]["masked_convolutions"][key]
    assert len(convs) - len(masked) == published()["mask"]["plain_convolutions"][key]


def test_the_fill_has_the_counted_weights() -> None:
    for scale, side, total in zip(FILL["lambda"], FILL["side"], FILL["total"], strict=True):
        kernel = radial_kernel(torch.tensor(scale, dtype=torch.float64))
        assert kernel.shape == (FILL["size"], FILL["size"])
        assert float(kernel[3, 2]) == pytest.approx(side, abs=1e-6)
        assert float(kernel.sum()) == pytest.approx(total, abs=1e-6)
        assert kernel[3, 3] == 0


@pytest.mark.parametrize("size", [(9, 11), (70, 80)])  # a banded matrix, and a row and a column
@pytest.mark.parametrize("scale", [0.7, 3.0])
def test_a_row_and_a_column_fill_like_the_square(size: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(2, 1, *size, generator=generator) < 0.5
    computed = torch.randn(2, 3, *size, generator=generator).double() * active
    learned = torch.tensor([scale], dtype=torch.float64, requires_grad=True)
    found = fill_skipped(computed, learned).where(~active, 0)
    square = radial_kernel(learned).expand(3, 1, -1, -1)
    expected = F.conv2d(computed, square, padding=3, groups=3).where(~active, 0)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(one.square().sum(), learned)[0] for one in (found, expected)]
    torch.testing.assert_close(*slopes)
    assert slopes[0] != 0


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (1, 1)])
def test_a_masked_convolution_is_what_the_reference_writes(stride: int, kernel: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, stride, kernel // 2).double()
    segment = SegmentMask()
    masked = MaskedConv2d(conv, segment)
    x = torch.randn(2, 4, 16, 16, dtype=torch.float64)
    y = conv(x)
    assert torch.equal(masked(x), y)
    active = torch.rand(2, 1, 16, 16) < 0.5
    segment.set(active)
    m = resized(active, tuple(y.shape[-2:])).double()
    square = radial_kernel(masked.fill_lambda.double()).expand(6, 1, -1, -1)
    fill = F.conv2d(y * m, square, padding=3, groups=6)
    torch.testing.assert_close(masked(x), y * m + fill * (1 - m))


def test_convolutions_of_other_classes_are_not_masked() -> None:
    """What is their own, such as standardised weights, would be lost."""

    class Doubled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layers = nn.Sequential(Doubled(3, 3, 1), nn.Conv2d(3, 3, 1))
    mask_convolutions(layers, SegmentMask())
    assert [type(one) for one in layers] == [Doubled, MaskedConv2d]


def test_a_mask_is_resized_as_the_authors_resize_logits() -> None:
    logits = torch.randn(2, 5, 16, 12)
    active = unsure(logits, 0.4)
    assert 0 < float(active.double().mean()) < 1
    for size in ((8, 6), (4, 3), (2, 1)):
        smaller = unsure(F.interpolate(logits, size, mode="nearest"), 0.4)
        assert torch.equal(resized(active, size), smaller)


def test_lambda_gets_a_gradient_as_soon_as_something_is_skipped() -> None:
    net = anytime_net(masks="confidence").train()
    scales = [weight for name, weight in net.named_parameters() if name.endswith("fill_lambda")]
    x = images()
    middle = float(confidence(net(x)[0].detach()).median())
    for threshold, some in ((1.0, False), (middle, True)):
        net.zero_grad()
        net.threshold = threshold
        sum(one.square().mean() for one in net(x)).backward()
        moved = [float(scale.grad.abs()) > 0 for scale in scales if scale.grad is not None]
        assert len(moved) == len(scales)
        assert any(moved) is some


def test_a_confident_position_keeps_its_logits() -> None:
    net = anytime_net(masks="confidence")
    net.threshold = 0.6
    with torch.no_grad():
        outputs = list(net.run(images()))
    skipped = 0
    for index, output in enumerate(outputs[:-1]):
        sure = (confidence(output.logits) > net.threshold).expand_as(output.logits)
        for later in outputs[index + 1 :]:
            assert torch.equal(later.logits[sure], output.logits[sure])
            assert later.computed is not None
            assert not later.computed[sure[:, :1]].any()
        skipped += int(sure.sum())
    assert 0 < skipped < 3 * outputs[0].logits.numel()


def test_later_losses_train_the_exit_whose_logits_are_kept() -> None:
    net = anytime_net(masks="confidence", exits=[1, 2])
    net.threshold = float(confidence(net(images())[0].detach()).median())
    first, second = net.run(images())
    assert second.computed is not None
    weights = [net.get_parameter(f"heads.{exit}.convs.0.weight") for exit in (1, 2)]
    kept, *slopes = torch.autograd.grad(second.logits.sum(), [first.logits, *weights])
    assert torch.equal(kept, (~second.computed).float().expand_as(kept))
    assert all(slope.abs().sum() > 0 for slope in slopes)


def test_random_masks_take_the_given_share() -> None:
    shares = (0.7, 0.4, 0.0)
    net = anytime_net(masks="random", random_shares=shares)
    x = images((128, 128), 4)
    torch.manual_seed(3)
    with torch.no_grad():
        outputs = list(net.run(x))
    masks = [one.computed for one in outputs[1:] if one.computed is not None]
    found = [float(mask.double().mean()) for mask in masks]
    assert found == pytest.approx(shares, abs=0.03)
    assert not (masks[1] & ~masks[0]).any()
    assert torch.equal(outputs[3].logits, outputs[2].logits)
    net.random_shares = (1.0, 1.0, 1.0)
    plain = anytime_net()
    net.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(net(x), plain(x), strict=True))


def test_without_merging_logits_are_the_networks_own() -> None:
    net = anytime_net(masks="confidence", merge=False)
    net.threshold = 0.0
    logits = net(images())
    assert not torch.equal(logits[0], logits[1])


def test_of_joints_what_no_heatmap_reaches_is_known() -> None:
    heatmaps = torch.tensor([[0.0, 0.9, 0.04], [0.06, -1.0, -0.2]]).view(1, 2, 1, 3)
    assert unsure(heatmaps, 0.05, "heatmap").flatten().tolist() == [True, True, False]


def test_entropy_is_another_criterion() -> None:
    logits = torch.tensor([[0.0, 9.0], [0.0, -9.0]]).view(1, 2, 1, 2)
    assert unsure(logits, 0.69, "entropy").flatten().tolist() == [True, False]  # ln 2 and 0
    net, x = anytime_net(masks="entropy", exits=[1, 2], heads="original"), images()
    with torch.no_grad():
        chances = net(x)[0].softmax(1)
        entropies = -(chances * chances.log()).sum(1)
        net.threshold = float(entropies.median())
        _, second = net.run(x)
    assert second.mask.double().mean() == pytest.approx(0.5, abs=0.01)


def test_a_grid_is_computed_at_every_size() -> None:
    active = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    assert resized(active, (6, 6), 3)[0, 0].nonzero().tolist() == [[1, 1], [1, 4], [4, 1], [4, 4]]
    assert resized(active, (3, 3), 3)[0, 0].nonzero().tolist() == [[1, 1]]
    net, x = anytime_net(masks="confidence", grid=4, threshold=0.0), images()
    with torch.no_grad():
        first, *later = list(net.run(x))
    for output in later:  # nothing else is
        changed = (output.logits != first.logits).any(1)
        assert changed[:, 1::4, 1::4].all()
        assert int(changed.sum()) == changed[:, 1::4, 1::4].numel()
    layers = net.layer_costs((3, 64, 64))
    everywhere = [torch.ones(1, 1, 16, 16, dtype=torch.bool)] * 3
    nowhere = [~one for one in everywhere]
    costs = [
        exit_macs(layers, [None, *masks], net.spec.grid)[-1] for masks in (nowhere, everywhere)
    ]
    assert exit_macs(layers, [None, *nowhere])[-1] < costs[0] < costs[1]
