"""Features by stage, for detectors and the like, from every way that timm has to ask for them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from support.features import check_features
from support.nets import BASELINES, build, every_small, images, settled, walk
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet

from convnext_study.models.pretrained.convert import load
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import NetSpec


@every_small
def test_features_are_the_stages_outputs_and_stay_so(name: str) -> None:
    """No later layer works in place on a map that was handed out."""
    x = images(2, 3, 32, 32)
    clean = check_features(settled, name, x)
    last = len(clean) - 1
    chosen = settled(name, features_only=True, out_indices=(0, last))
    assert all(map(torch.equal, chosen(x), (clean[0], clean[last])))
    assert chosen.feature_info.channels() == [clean[0].shape[1], clean[last].shape[1]]


@every_small
def test_intermediates(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    final, maps = net.forward_intermediates(x)
    last, logits = len(maps) - 1, net(x)
    assert torch.equal(net.forward_head(final), logits)
    only = net.forward_intermediates(x, indices=2, norm=True, intermediates_only=True)
    assert all(map(torch.equal, only, maps[-2:]))
    early, first = net.forward_intermediates(x, indices=[0, -last], stop_early=True)
    assert torch.equal(early, maps[1])
    assert all(map(torch.equal, first, maps[:2]))
    with pytest.raises(ValueError, match="only NCHW"):
        net.forward_intermediates(x, output_fmt="NLC")
    assert net.prune_intermediate_layers(2, prune_head=False) == [last - 1, last]
    assert torch.equal(net(x), logits)  # a head that fits stays
    for end in (last, 1):
        assert net.prune_intermediate_layers([0, end]) == [0, end]
        assert torch.equal(net(x), maps[end])
        assert net.num_features == net.head_hidden_size == maps[end].shape[1]
    net.reset_classifier(6, "avg")
    assert net(x).shape == (2, 6)


@pytest.mark.parametrize("name", BASELINES)
def test_features_of_baselines(name: str) -> None:
    net = build(name, features_only=True, device="meta")
    assert net.feature_info.reduction() == [1, 1, 2, 4, 8]
    maps = net(images(1, 3, 32, 32, device="meta"))
    assert [32 // one.shape[-1] for one in maps] == [1, 1, 2, 4, 8]
    assert [one.shape[1] for one in maps] == net.feature_info.channels()


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@walk(timm.list_models("roadmap_t_*"))
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride(name: str, output_stride: int) -> None:
    net = build(name, device="meta", features_only=True, output_stride=output_stride)
    reductions = net.feature_info.reduction()
    assert reductions == [min(reduction, output_stride) for reduction in (4, 8, 16, 32)]
    maps = net(images(1, 3, 64, 64, device="meta"))
    assert [64 // one.shape[-1] for one in maps] == reductions


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("stride", [8, 32])
@pytest.mark.parametrize(
    ("ours", "theirs", "skip"),
    [
        ("roadmap_t_resnet50", "resnet50", 1),  # timm's first feature is within the stem
        ("roadmap_t_separate_downsampling", "convnext_tiny", 0),
    ],
)
def test_sizes_of_maps_as_in_timm(ours: str, theirs: str, skip: int, stride: int) -> None:
    """The two ends of the road beside timm's own networks."""
    with torch.device("meta"):
        found, expected = (
            build(name, features_only=True, output_stride=stride) for name in (ours, theirs)
        )
    for size in (192, 256, 288, (224, 160), (225, 250)):
        height, width = (size, size) if isinstance(size, int) else size
        x = images(1, 3, height, width, device="meta")
        assert [one.shape for one in found(x)] == [one.shape for one in expected(x)[skip:]]
    assert found.feature_info.reduction() == expected.feature_info.reduction()[skip:]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilation_as_in_timm(stride: int) -> None:
    """The same weights give the same maps where strides became dilation."""
    small: dict[str, Any] = {"depths": (1, 1, 2, 2)}
    x = images(1, 3, 64, 70)
    end = get_roadmap("t").upto("separate_downsampling").replace(**small, width=8, layer_scale=0.5)
    dims = (8, 16, 32, 64)
    for spec, theirs in (
        (end, ConvNeXt(**small, dims=dims, ls_init_value=0.5, output_stride=stride)),
        (NetSpec(**small), ResNet(Bottleneck, (1, 1, 2, 2), output_stride=stride)),
    ):
        ours = RoadmapNet(spec, output_stride=stride).eval()
        load(ours, theirs.state_dict())
        expected = theirs.eval().forward_features(x)
        assert torch.allclose(ours.forward_features(x), expected, atol=1e-4, rtol=1e-4)
