"""The matrix form of the depthwise convolution: equal to torch's, and out of the way elsewhere."""

import pytest
import torch
from torch import nn

from convnext_study.depthwise import MatrixDepthwise, position_taps, use_matrices, use_stock
from convnext_study.net import RoadmapNet
from convnext_study.roadmap import get_roadmap


@pytest.mark.parametrize("kernel", [3, 7, 11])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 8), (8, 8), (9, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_torchs(
    kernel: int, stride: int, dilation: int, size: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    padding = dilation * (kernel // 2)
    stock = nn.Conv2d(6, 6, kernel, stride, padding, dilation, groups=6, bias=bias).double()
    matrix = nn.Conv2d(6, 6, kernel, stride, padding, dilation, groups=6, bias=bias).double()
    matrix.load_state_dict(stock.state_dict())
    assert use_matrices(matrix) == 1
    images = torch.randn(3, 6, *size, dtype=torch.float64)
    results = []
    for conv in (stock, matrix):
        x = images.clone().requires_grad_()
        output = conv(x)
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output))
        gradients = [parameter.grad for parameter in conv.parameters()]
        results.append([output.detach(), x.grad, *gradients])
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert other is not None
        assert one.shape == other.shape
        assert (one - other).abs().max() < 2e-13


def test_the_matrices_are_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(4, 4, 7, padding=3, groups=4)
    use_matrices(conv)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *_: pytest.fail("used torch's"))
    assert conv(torch.randn(2, 4, 8, 8)).shape == (2, 4, 8, 8)


def test_taps_count_what_the_kernel_touches() -> None:
    taps, height, width = position_taps(4, 4, 3, 1, 1, 1)
    assert (height, width) == (4, 4)
    # 4 corners see 4 pixels, 8 edge positions 6, 4 inner ones 9.
    assert taps.sum() == 4 * 4 + 8 * 6 + 4 * 9
    assert set(taps.unique().tolist()) == {0.0, 1.0}


def test_a_network_keeps_its_names_and_comes_back() -> None:
    net = RoadmapNet(get_roadmap("nano").point("kernel_7").spec, num_classes=10).eval()
    names = list(net.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = net(images)
        assert use_matrices(net) == 6
        assert list(net.state_dict()) == names
        assert torch.allclose(net(images), before, atol=1e-5)
        use_stock(net)
        assert torch.equal(net(images), before)
    assert not any(isinstance(module, MatrixDepthwise) for module in net.modules())


def test_other_convolutions_are_left_alone() -> None:
    others = nn.Sequential(
        nn.Conv2d(4, 4, 7, padding=3),
        nn.Conv2d(4, 8, 7, padding=3, groups=4),
        nn.Conv2d(4, 4, 2, padding="same", groups=4),
        nn.Conv2d(4, 4, (3, 7), groups=4),
        nn.Conv2d(4, 4, 7, padding=3, groups=4, padding_mode="circular"),
    )
    assert use_matrices(others) == 0


def test_judged_first_and_trained_afterwards() -> None:
    position_taps.cache_clear()
    conv = MatrixDepthwise(4, 4, 7, padding=3, groups=4)
    images = torch.randn(2, 4, 5, 5)
    with torch.inference_mode():
        conv(images)
    conv(images).sum().backward()
    assert conv.weight.grad is not None
