"""Every registered model keeps what timm's users expect of a model.

Shapes and gradients of all of the road maps and of the multi-path study are checked on the meta
device, which computes no values; values on the 16 nano networks, which have the same layers as
those of the other road maps, and on narrow ones.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import timm
import torch
from support.features import check_features
from support.nets import (
    BASELINES,
    NANO,
    NARROW,
    ROADMAP,
    USUAL,
    build,
    compare_a_step,
    every_model,
    every_own,
    every_small,
    images,
    outline,
    settled,
    small,
    walk,
)
from timm.models import group_parameters
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from convnext_study.cost.closed_form import sides
from convnext_study.models.layers import DropPath, LayerScale
from convnext_study.models.pretrained.convert import load
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import NetSpec

every_head = walk([*NANO, *NARROW, BASELINES[1]], {*USUAL, *NARROW, BASELINES[1]})


def leaves(output: Tensor) -> set[int]:
    """Identities of the parameters that a backward pass from here would reach.

    Without values that pass itself takes longer than with them.
    """
    seen, left, found = set(), [output.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            found.add(id(node.variable))
    return found


@every_model
def test_attributes(name: str) -> None:
    net = outline(name)
    config, data = net.pretrained_cfg, timm.data.resolve_model_data_config(net)
    side = 32 if "multipath" in name else 64 if "nano" in name else 224
    assert net.default_cfg is config
    assert config["architecture"] == name
    assert net.num_classes == config["num_classes"] == (1000 if side == 224 else 10)
    assert (net.in_chans, net.drop_rate) == (3, 0.0)
    assert net.num_features == net.head_hidden_size == net.feature_info[-1]["num_chs"]
    weights = net.state_dict()
    assert weights[config["first_conv"] + ".weight"].shape[1] == 3
    assert weights[config["classifier"] + ".weight"].shape == (net.num_classes, net.num_features)
    assert data["input_size"] == (3, side, side)
    maps = net.forward_features(images(1, 3, side, side, device="meta"))
    assert maps.shape[2:] == config["pool_size"]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | LayerScale):
            assert {weight.ndim for weight in module.parameters()} == {1}
    if "multipath" in name:
        assert "Our reconstruction" in config["description"]
        assert "Our reconstruction" in (timm.model_entrypoint(name).__doc__ or "")
        assert "10.3778/j.issn.1002-8331.2110-0083" in config["paper_ids"]
        assert data["crop_pct"] == 1.0


@every_model
def test_maps_logits_and_every_gradient(name: str) -> None:
    net, size = outline(name), (70, 103)  # which no stride divides
    final, maps = net.forward_intermediates(images(2, 3, *size, device="meta"))
    channels, reductions = (
        [info[key] for info in net.feature_info] for key in ("num_chs", "reduction")
    )
    if name in ROADMAP:
        stem, expected = net.spec.stem_stride, [sides(net.spec, one)[1:] for one in size]
        assert reductions == [stem, 2 * stem, 4 * stem, 8 * stem]
    else:
        expected = [tuple(-(-one // by) for by in reductions) for one in size]
        assert reductions[-3:] == ([2, 4, 8] if name in BASELINES else [1, 2, 4])
    assert [tuple(one.shape) for one in maps] == [
        (2, count, *shape) for count, *shape in zip(channels, *expected, strict=True)
    ]
    assert final is maps[-1]
    if name not in BASELINES:
        assert channels == list(net.spec.widths())
    assert net.forward_head(final, pre_logits=True).shape == (2, net.head_hidden_size)
    logits = net.forward_head(final)
    assert logits.shape == (2, net.num_classes)
    weights = leaves(logits)
    assert [key for key, weight in net.named_parameters() if id(weight) not in weights] == []


@every_own
def test_parameter_groups(name: str) -> None:
    net = outline(name)
    assert net.no_weight_decay() == set()
    order = {key: place for place, (key, _) in enumerate(net.named_parameters())}
    stages, blocks = len(net.stages), sum(len(stage.blocks) for stage in net.stages)
    for coarse, depth in ((True, stages + 2), (False, blocks + 2)):
        groups = group_parameters(net, net.group_matcher(coarse=coarse))
        assert len(groups) == depth  # stem, blocks or stages, head
        assert sorted(key for keys in groups.values() for key in keys) == sorted(order)
        reached = -1
        for layer in sorted(groups):  # a deeper group holds only later parameters
            places = [order[key] for key in groups[layer]]
            assert min(places) > reached
            reached = max(places)
    decayed = param_groups_layer_decay(net, weight_decay=0.05, layer_decay=0.7)
    assert sum(len(group["params"]) for group in decayed) == len(order)
    assert max(group["lr_scale"] for group in decayed) == 1.0
    assert {weight.ndim > 1 for group in decayed for weight in group["params"]} == {True, False}
    for group in decayed:
        assert all((weight.ndim > 1) == (group["weight_decay"] > 0) for weight in group["params"])


@every_head
def test_head(name: str) -> None:
    net = settled(name, drop_rate=0.5)
    x = images(2, 3, 32, 32)
    logits, maps = net(x), net.forward_features(x)
    assert torch.equal(net.forward_head(maps), logits)
    features = net.forward_head(maps, pre_logits=True)
    assert torch.equal(net.get_classifier()(features), logits)
    assert torch.allclose(net(x[:1]), logits[:1], atol=1e-5)  # a batch of one
    assert not torch.equal(net.train().forward_head(maps), net.forward_head(maps))  # dropout
    net.eval()
    for pool in ("max", "avgmax", "avg"):
        net.reset_classifier(5, pool)
        assert (net.num_classes, net(x).shape) == (5, (2, 5))
    net.reset_classifier(0)
    assert torch.allclose(net(x), features, atol=1e-6)
    net.reset_classifier(0, "")
    assert net(x).shape == maps.shape
    if name not in BASELINES:
        net.reset_classifier(7)
        assert net(x).shape == (2, 7, *maps.shape[2:])  # the pooling that was chosen stays


@every_head
def test_head_by_keyword(name: str) -> None:
    net = small(name, num_classes=0).eval()
    assert net(images(2, 3, 32, 32)).shape == (2, net.num_features)
    x, net = images(2, 1, 32, 32), small(name, in_chans=1, num_classes=4).eval()
    assert net(x).shape == (2, 4)
    net = small(name, in_chans=1, num_classes=0, global_pool="").eval()
    assert net(x).shape == net.forward_features(x).shape
    if name not in BASELINES:
        net.reset_classifier(4)
        assert net(x).shape == (2, 4, *net.forward_features(x).shape[2:])


@every_small
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    """Neither output nor gradients, nor BatchNorm's statistics, which see a batch only once."""
    plain = small(name, drop_path_rate=0.2)
    thrifty = copy.deepcopy(plain)
    compare_a_step(plain, thrifty)
    if name in ROADMAP:  # a narrow block may be dropped for all images
        assert all(weight.grad.abs().sum() > 0 for weight in plain.parameters())
    assert all(stage.grad_checkpointing for stage in thrifty.stages)
    thrifty.set_grad_checkpointing(False)
    assert not any(stage.grad_checkpointing for stage in thrifty.stages)


@every_head
def test_low_precision_and_memory_format(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    logits = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(net(x).float(), logits, atol=0.1, rtol=0.1)
    channels_last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    again = channels_last(x.to(memory_format=torch.channels_last))
    assert torch.allclose(again, logits, atol=1e-5)
    net.to(torch.bfloat16)
    assert torch.allclose(net(x.bfloat16()).float(), logits, atol=0.1, rtol=0.1)


@every_small
def test_whole_models_are_saved_and_copied(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), copy.deepcopy(net)):
        assert torch.equal(again(x), net(x))
        assert again.spec == net.spec


@pytest.mark.parametrize("name", ["roadmap_t_gelu", "multipath_small"])
def test_stochastic_depth_grows_from_nothing_at_the_first_block(name: str) -> None:
    net = build(name, device="meta", drop_path_rate=0.2)
    rates = [block.drop_path for stage in net.stages for block in stage.blocks]
    assert isinstance(rates[0], nn.Identity)
    found = [module.rate for module in rates if isinstance(module, DropPath)]
    assert len(found) == len(rates) - 1
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.2)


def test_stochastic_depth_keeps_the_mean_and_drops_whole_samples() -> None:
    drop = DropPath(0.25).train()
    torch.manual_seed(0)
    y = drop(torch.ones(4000, 2, 3, 3))
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert torch.equal(y.amin((1, 2, 3)), y.amax((1, 2, 3)))
    assert abs(y.mean().item() - 1) < 0.05
    assert torch.equal(drop.eval()(y), y)


def test_initial_weights() -> None:
    net = build("roadmap_nano_resnet")
    assert net.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert net.head.fc.bias.abs().max() == 0
    net.init_weights("kaiming")
    conv = net.stages[3].blocks[0].branch.spatial.weight
    assert conv.std().item() == pytest.approx((2 / (conv.shape[0] * 9)) ** 0.5, rel=0.05)
    # torchvision leaves torch's own start in the classifier: uniform, up to 1 / sqrt(features).
    bound = net.num_features**-0.5
    assert 0.9 * bound < net.head.fc.weight.abs().max() <= bound
    assert net.head.fc.bias.abs().max() > 0


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


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_maps_are_timms(stride: int) -> None:
    """With the same weights, also where strides became dilation; in float64."""
    small: dict[str, Any] = {"depths": (1, 1, 2, 2)}
    x = images(1, 3, 64, 70).double()
    end = get_roadmap("t").upto("separate_downsampling").replace(**small, width=8, layer_scale=0.5)
    dims = (8, 16, 32, 64)
    for spec, theirs in (
        (end, ConvNeXt(**small, dims=dims, ls_init_value=0.5, output_stride=stride)),
        (NetSpec(**small), ResNet(Bottleneck, (1, 1, 2, 2), output_stride=stride)),
    ):
        ours = RoadmapNet(spec, output_stride=stride)
        load(ours, theirs.state_dict())
        found, expected = (
            net.eval().double().forward_intermediates(x, indices=4, intermediates_only=True)
            for net in (ours, theirs)
        )
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
