"""Convolutions as matrix products: equal to torch's, and out of the way elsewhere."""

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from convnext_study.models import fast_conv
from convnext_study.models.fast_conv import (
    GemmGradDepthwiseConv2d,
    Im2colConv2d,
    LinearConv2d,
    position_taps,
    restore_convs,
    use_gemm_convs,
)
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap

Results = list[torch.Tensor | None]


def results_of(conv: nn.Conv2d, images: torch.Tensor) -> Results:
    """Output, and the gradients of the input and of each parameter."""
    x = images.clone().requires_grad_()
    output = conv(x)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output))
    return [output.detach(), x.grad, *(parameter.grad for parameter in conv.parameters())]


def assert_same(ours: Results, theirs: Results) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one is not None
        assert other is not None
        assert one.shape == other.shape
        assert (one - other).abs().max() < 2e-13


def assert_same_in_both_layouts(matrix: nn.Conv2d, stock: nn.Conv2d, images: torch.Tensor) -> None:
    for layout in (torch.channels_last, torch.contiguous_format):
        images = images.contiguous(memory_format=layout)
        stock.zero_grad()
        matrix.zero_grad()
        assert_same(results_of(matrix, images), results_of(stock, images))


def pair_of(*args: int, **kwargs: int | bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The same convolution as matrices, and as torch's, in double precision, channels last."""
    torch.manual_seed(0)
    make: Any = nn.Conv2d
    matrix, stock = (
        make(*args, **kwargs).double().to(memory_format=torch.channels_last) for _ in range(2)
    )
    matrix.load_state_dict(stock.state_dict())
    assert use_gemm_convs(matrix) == 1
    return matrix, stock


@pytest.mark.parametrize("kernel", [3, 5, 7, 11])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (4, 4), (5, 8), (8, 8), (9, 9)])
@pytest.mark.parametrize("form", [GemmGradDepthwiseConv2d, Im2colConv2d])
def test_a_padded_convolution_is_torchs(
    kernel: int, stride: int, dilation: int, size: tuple[int, int], form: type[nn.Conv2d]
) -> None:
    groups, out = (6, 6) if form is GemmGradDepthwiseConv2d else (1, 8)
    shape = (6, out, kernel, stride, dilation * (kernel // 2), dilation, groups)
    for bias in (True, False):
        matrix, stock = pair_of(*shape, bias=bias)
        assert type(matrix) is form
        images = torch.randn(3, 6, *size, dtype=torch.float64)
        assert_same_in_both_layouts(matrix, stock, images)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (2, 2), (4, 4)])
@pytest.mark.parametrize("size", [(4, 4), (5, 8), (9, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_without_overlap_is_torchs(
    kernel: int, stride: int, size: tuple[int, int], bias: bool
) -> None:
    matrix, stock = pair_of(8, 12, kernel, stride, bias=bias)
    assert type(matrix) is LinearConv2d
    images = torch.randn(3, 8, *size, dtype=torch.float64)
    assert_same_in_both_layouts(matrix, stock, images)


def test_what_needs_no_gradient_gets_none() -> None:
    matrix, _ = pair_of(4, 4, 7, padding=3, groups=4)
    images = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    matrix(images).sum().backward()  # the images, as a network's, need none
    assert matrix.weight.grad is not None
    matrix.zero_grad()
    assert matrix.bias is not None
    matrix.bias.requires_grad_(False)
    matrix(images).sum().backward()
    assert matrix.weight.grad is not None
    assert matrix.bias.grad is None
    matrix.weight.requires_grad_(False)
    x = images.requires_grad_()
    matrix(x).sum().backward()
    assert x.grad is not None


def test_matrices_are_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torchs = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *_: pytest.fail("used torch's"))
    small = torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(8, 8, 7, padding=3, groups=8)
    use_gemm_convs(conv)
    used = Mock(side_effect=fast_conv.weight_gradient)
    monkeypatch.setattr(fast_conv, "weight_gradient", used)
    conv(small).sum().backward()
    assert used.call_count == 1
    pointwise, dense = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 7, padding=3)
    assert use_gemm_convs(pointwise) + use_gemm_convs(dense) == 2
    assert pointwise(small).shape == (2, 16, 8, 8)
    assert dense(small[:, :, :2, :2]).shape == (2, 16, 2, 2)

    # Where they would be slower, or would change what autocast does, torch's is used.
    monkeypatch.setattr(nn.Conv2d, "forward", torchs)
    conv(torch.randn(2, 8, 9, 9)).sum().backward()
    assert dense(small).shape == (2, 16, 8, 8)
    with torch.no_grad():
        conv(small)
    with torch.autocast("cpu", torch.bfloat16):
        conv(small).sum().backward()
    assert used.call_count == 1


def test_a_network_keeps_its_names_and_comes_back() -> None:
    net = RoadmapNet(get_roadmap("nano").variant("kernel_7").spec, num_classes=10).eval()
    names = list(net.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = net(images)
        assert use_gemm_convs(net) == 21
        assert list(net.state_dict()) == names
        assert torch.allclose(net(images), before, atol=1e-5)
        restore_convs(net)
        assert torch.equal(net(images), before)
    kinds = {type(module) for module in net.modules()}
    assert not kinds & {Im2colConv2d, GemmGradDepthwiseConv2d, LinearConv2d}


def test_other_convolutions_are_left_alone() -> None:
    others = nn.Sequential(
        nn.Conv2d(4, 4, 7, padding=2),
        nn.Conv2d(4, 4, 4, padding=2),
        nn.Conv2d(4, 8, 7, padding=3, groups=4),
        nn.Conv2d(4, 4, 2, padding="same", groups=4),
        nn.Conv2d(4, 4, (3, 7), groups=4),
        nn.Conv2d(4, 4, 7, padding=3, groups=4, padding_mode="circular"),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 2, 2, dilation=2),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Conv2d(3, 8, 4, 4),
    )
    assert use_gemm_convs(others) == 0


def test_judged_first_and_trained_afterwards() -> None:
    position_taps.cache_clear()
    conv = GemmGradDepthwiseConv2d(4, 4, 7, padding=3, groups=4)
    images = torch.randn(2, 4, 5, 5)
    with torch.inference_mode():
        conv(images)
    conv(images).sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize("name", ["resnet", "depthwise_conv", "separate_downsampling", "dense"])
def test_gradients_lie_in_memory_as_their_weights_do(name: str) -> None:
    # torch's fused optimizers go through memory in order: other strides are silently wrong there.
    spec = get_roadmap("nano").variant("separate_downsampling" if name == "dense" else name).spec
    net = RoadmapNet(spec.replace(depthwise=False) if name == "dense" else spec, num_classes=10)
    use_gemm_convs(net)
    net = net.to(memory_format=torch.channels_last)
    net(torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)).sum().backward()
    for own, parameter in net.named_parameters():
        assert parameter.grad is not None
        shared = [place for place, size in enumerate(parameter.shape) if size > 1]
        strides = [
            [tensor.stride(place) for place in shared] for tensor in (parameter, parameter.grad)
        ]
        assert strides[0] == strides[1], own
