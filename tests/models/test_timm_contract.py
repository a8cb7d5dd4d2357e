"""Every registered model keeps what timm's users expect of a model.

Shapes and gradients of all 48 are checked on the meta device, which computes no values; values on
the 16 nano networks, which have the same layers as those of the other road maps.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import timm
import torch
from support.nets import build, compare_a_step, every_model, every_nano, images, outline, settled
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from convnext_study.models.layers import DropPath, LayerScale
from convnext_study.roadmap.spec import STAGES


def down(net: Any, size: int) -> list[int]:
    """Sides of the four stages' maps: patches that do not overlap drop the rest, others do not."""
    spec, sides = net.spec, []
    side = size // spec.stem_stride if spec.stem == "patchify" else -(-size // spec.stem_stride)
    for stage in range(STAGES):
        if stage > 0:
            side = side // 2 if spec.downsampling == "separate" else -(-side // 2)
        sides.append(side)
    return sides


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
    config = net.pretrained_cfg
    assert net.default_cfg is config
    assert config["architecture"] == name
    assert net.num_classes == config["num_classes"] == (10 if "nano" in name else 1000)
    assert (net.in_chans, net.drop_rate) == (3, 0.0)
    assert net.num_features == net.head_hidden_size == net.feature_info[-1]["num_chs"]
    weights = net.state_dict()
    assert weights[config["first_conv"] + ".weight"].shape[1] == 3
    assert weights[config["classifier"] + ".weight"].shape == (net.num_classes, net.num_features)
    data = timm.data.resolve_model_data_config(net)
    assert data["input_size"] == ((3, 64, 64) if "nano" in name else (3, 224, 224))
    assert net.no_weight_decay() == set()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | LayerScale):
            assert {weight.ndim for weight in module.parameters()} == {1}


@every_model
def test_maps_logits_and_every_gradient(name: str) -> None:
    net, size = outline(name), (70, 103)  # which no stride divides
    final, maps = net.forward_intermediates(images(2, 3, *size, device="meta"))
    sides = zip(down(net, size[0]), down(net, size[1]), strict=True)
    expected = [
        (2, channels, *side) for channels, side in zip(net.spec.widths(), sides, strict=True)
    ]
    assert [tuple(one.shape) for one in maps] == expected
    assert final is maps[-1]
    stem = net.spec.stem_stride
    assert [info["reduction"] for info in net.feature_info] == [stem, 2 * stem, 4 * stem, 8 * stem]
    assert [info["num_chs"] for info in net.feature_info] == list(net.spec.widths())
    assert net.forward_head(final, pre_logits=True).shape == (2, net.head_hidden_size)
    logits = net.forward_head(final)
    assert logits.shape == (2, net.num_classes)
    weights = leaves(logits)
    assert [key for key, weight in net.named_parameters() if id(weight) not in weights] == []


@every_model
def test_parameter_groups(name: str) -> None:
    net = outline(name)
    order = {key: place for place, (key, _) in enumerate(net.named_parameters())}
    for coarse, depth in ((True, STAGES + 2), (False, sum(net.spec.depths) + 2)):
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


@every_nano
def test_head(name: str) -> None:
    net = settled(name, drop_rate=0.5)
    x = images(2, 3, 32, 32)
    logits, maps = net(x), net.forward_features(x)
    assert torch.equal(net.forward_head(maps), logits)
    features = net.forward_head(maps, pre_logits=True)
    assert torch.equal(net.get_classifier()(features), logits)
    assert torch.allclose(net(x[:1]), logits[:1], atol=1e-5)  # a batch of one
    for pool in ("max", "avgmax", "avg"):
        net.reset_classifier(5, pool)
        assert (net.num_classes, net(x).shape) == (5, (2, 5))
    net.reset_classifier(0)
    assert torch.equal(net(x), features)
    net.reset_classifier(0, "")
    assert net(x).shape == maps.shape
    net.reset_classifier(7)
    assert net(x).shape == (2, 7, *maps.shape[2:])  # the pooling that was chosen stays
    assert net.drop_rate == net.head.drop.p == 0.5


@every_nano
def test_head_by_keyword(name: str) -> None:
    x = images(2, 1, 32, 32)
    net = settled(name, in_chans=3, num_classes=0)
    assert net(images(2, 3, 32, 32)).shape == (2, net.num_features)
    net = build(name, in_chans=1, num_classes=4, global_pool="").eval()
    maps = net.forward_features(x)
    assert net(x).shape == (2, 4, *maps.shape[2:])
    assert net.forward_head(maps, pre_logits=True).shape == maps.shape


@every_nano
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    """Neither output nor gradients, nor BatchNorm's statistics, which see a batch only once."""
    plain = build(name, drop_path_rate=0.2)
    thrifty = copy.deepcopy(plain)
    compare_a_step(plain, thrifty)
    assert all(weight.grad.abs().sum() > 0 for weight in plain.parameters())
    assert all(stage.grad_checkpointing for stage in thrifty.stages)
    thrifty.set_grad_checkpointing(False)
    assert not any(stage.grad_checkpointing for stage in thrifty.stages)


@every_nano
def test_low_precision_and_memory_format(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    logits = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(net(x).float(), logits, atol=0.1, rtol=0.1)
    channels_last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert torch.allclose(channels_last(x), logits, atol=1e-5)
    net.to(torch.bfloat16)
    assert torch.allclose(net(x.bfloat16()).float(), logits, atol=0.1, rtol=0.1)


@every_nano
def test_whole_models_are_saved_and_copied(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), copy.deepcopy(net)):
        assert torch.equal(again(x), net(x))
        assert again.spec == net.spec


def test_stochastic_depth_grows_from_nothing_at_the_first_block() -> None:
    net = build("roadmap_t_gelu", device="meta", drop_path_rate=0.2)
    rates = [block.drop_path for stage in net.stages for block in stage.blocks]
    assert isinstance(rates[0], nn.Identity)
    found = [module.rate for module in rates if isinstance(module, DropPath)]
    assert len(found) == len(rates) - 1
    assert found == sorted(found)
    assert found[-1] == 0.2


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
