"""The ConvNeXt authors' weights: against a network written from the paper, and timm's reading."""

from __future__ import annotations

import itertools
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor, nn

from convnext_study.models.pretrained.convert import detect, from_roadmap, load, spec_of, to_roadmap
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap

CLOSE = 1e-5  # of logits of order 1, in float32
LAYOUT = "official_convnext"


class Norm(nn.Module):
    """LayerNorm over the channels, written out: the mean and variance of each position."""

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.axis, -1)
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6) * self.weight + self.bias
        return x.movedim(-1, self.axis)


class Block(nn.Module):
    """Figure 4: depthwise 7x7, LayerNorm, 1x1 to 4C, GELU, 1x1 to C, then layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = Norm(channels, axis=-1)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        branch: Tensor = y.permute(0, 3, 1, 2)
        return x + branch


class ConvNeXt(nn.Module):
    """ConvNeXt from section 2 and Table 9, with the names of the authors' weights."""

    def __init__(self, depths: tuple[int, ...] = (3, 3, 9, 3), width: int = 96) -> None:
        super().__init__()
        dims = [width * 2**stage for stage in range(4)]
        stem = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), Norm(width, axis=1))
        between = [
            nn.Sequential(Norm(before, axis=1), nn.Conv2d(before, after, 2, stride=2))
            for before, after in itertools.pairwise(dims)
        ]
        self.downsample_layers = nn.ModuleList([stem, *between])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim) for _ in range(depth)))
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.norm = Norm(dims[-1], axis=-1)
        self.head = nn.Linear(dims[-1], 1000)

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean((-2, -1))))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def official() -> ConvNeXt:
    """ConvNeXt-T with random values for every parameter, layer scale too."""
    generator = torch.Generator().manual_seed(0)
    net = ConvNeXt().eval().requires_grad_(False)
    for tensor in net.parameters():
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
        tensor.normal_(generator=generator).div_(math.sqrt(fan_in))
    return net


def test_outputs_agree(official: ConvNeXt) -> None:
    checkpoint = {"model": official.state_dict()}  # as the authors' files wrap it
    spec = spec_of(checkpoint)
    assert spec == get_roadmap("t").variants()[-1].spec.replace(layer_scale=1e-6)
    ours = RoadmapNet(spec).eval()
    load(ours, checkpoint)
    for size in ((192, 192), (256, 288), (225, 225)):
        x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected, logits = official(x), ours(x)
        assert expected.std() > 0.1
        assert float((logits - expected).abs().max()) <= CLOSE, size


def test_round_trip_is_identical(official: ConvNeXt) -> None:
    state = official.state_dict()
    assert detect(state) == LAYOUT
    spec = spec_of(state)
    back = from_roadmap(to_roadmap(state, spec), spec, LAYOUT)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_timm_reads_these_weights_as_we_do(official: ConvNeXt) -> None:
    state = official.state_dict()
    with torch.device("meta"):
        net = timm.create_model("convnext_tiny")
    expected = checkpoint_filter_fn({"model": state}, net)
    spec = spec_of(state)
    timms = from_roadmap(to_roadmap(state, spec), spec, "timm_convnext")
    assert timms.keys() == expected.keys() == net.state_dict().keys()
    assert all(torch.equal(timms[key], tensor) for key, tensor in expected.items())
