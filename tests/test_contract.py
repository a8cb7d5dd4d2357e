"""Every registered model keeps what timm's users expect of a model.

Shapes and gradients of all 48 are checked on the meta device, which computes no values; values on
the 16 nano networks, which have the same layers as those of the other road maps.
"""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

import convnext_study  # noqa: F401  registers the models
from convnext_study.layers import DropPath, LayerScale
from convnext_study.spec import STAGES

MODELS = timm.list_models("roadmap_*")
NANO = timm.list_models("roadmap_nano_*")
T = timm.list_models("roadmap_t_*")

every_model = pytest.mark.parametrize("name", MODELS)
every_nano = pytest.mark.parametrize("name", NANO)


def build(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def images(*shape: int, device: str = "cpu") -> Tensor:
    generator = None if device == "meta" else torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, device=device)


def settled(name: str, **kwargs: Any) -> Any:
    """A nano network in eval mode whose norms have statistics and weights of their own."""
    net = build(name, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            channels = len(module.weight)
            module.weight.data = torch.linspace(0.5, 1.5, channels)
            module.bias.data = torch.linspace(-0.1, 0.1, channels)
    with torch.no_grad():
        net.train()(images(8, 3, 32, 32))
    return net.eval()


def down(net: Any, size: int) -> list[int]:
    """Sides of the four stages' maps: patches that do not overlap drop the rest, others do not."""
    spec, sides = net.spec, []
    side = size // spec.stem_stride if spec.stem == "patchify" else -(-size // spec.stem_stride)
    for stage in range(STAGES):
        if stage > 0:
            side = side // 2 if spec.downsampling == "separate" else -(-side // 2)
        sides.append(side)
    return sides


# All 48, without values


@every_model
def test_attributes(name: str) -> None:
    net = build(name, device="meta")
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
    assert data["input_size"] == ((3, 32, 32) if "nano" in name else (3, 224, 224))
    assert net.no_weight_decay() == set()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | LayerScale):
            assert {weight.ndim for weight in module.parameters()} == {1}


@every_model
def test_forward_and_every_gradient(name: str) -> None:
    net = build(name, device="meta", layer_scale=1e-6)
    size = net.pretrained_cfg["input_size"][-1] // (1 if "nano" in name else 4)
    maps = net.forward_features(images(2, 3, size, size, device="meta"))
    assert maps.shape == (2, net.num_features, down(net, size)[-1], down(net, size)[-1])
    assert net.forward_head(maps, pre_logits=True).shape == (2, net.head_hidden_size)
    logits = net.forward_head(maps)
    assert logits.shape == (2, net.num_classes)
    logits.sum().backward()
    without = [key for key, weight in net.named_parameters() if weight.grad is None]
    assert without == []


@every_model
def test_features_at_a_size_that_no_stride_divides(name: str) -> None:
    net = build(name, device="meta")
    height, width = 70, 103
    final, maps = net.forward_intermediates(images(2, 3, height, width, device="meta"))
    shapes = [(2, *shape) for shape in zip(net.spec.widths(), down(net, height), down(net, width))]
    assert [tuple(one.shape) for one in maps] == shapes
    assert final is maps[-1]
    stem = net.spec.stem_stride
    assert [info["reduction"] for info in net.feature_info] == [stem, 2 * stem, 4 * stem, 8 * stem]
    assert [info["num_chs"] for info in net.feature_info] == list(net.spec.widths())


@every_model
def test_parameter_groups(name: str) -> None:
    net = build(name, device="meta", layer_scale=1e-6)
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


@every_model
def test_symbolic_trace(name: str) -> None:
    net = build(name, device="meta", drop_path_rate=0.1)
    for mode in (True, False):
        traced = torch.fx.symbolic_trace(net.train(mode))
        assert [node.op for node in traced.graph.nodes].count("placeholder") == 1


@pytest.mark.parametrize("name", T)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride(name: str, output_stride: int) -> None:
    net = build(name, device="meta", features_only=True, output_stride=output_stride)
    reductions = net.feature_info.reduction()
    assert reductions == [min(reduction, output_stride) for reduction in (4, 8, 16, 32)]
    maps = net(images(1, 3, 64, 64, device="meta"))
    assert [64 // one.shape[-1] for one in maps] == reductions


# The nano networks, with values


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
def test_features_are_the_stages_outputs_and_stay_so(name: str) -> None:
    """No later layer works in place on a map that was handed out."""
    x, net = images(2, 3, 32, 32), settled(name)
    clean: list[Tensor] = []
    for stage in net.stages:
        stage.register_forward_hook(lambda *args: clean.append(args[-1].clone()))
    final, maps = net.forward_intermediates(x)
    assert all(map(torch.equal, maps, clean))
    assert torch.equal(final, clean[3])
    for kind in ("list", "dict", "hook", "fx", "getter"):
        found = settled(name, features_only=True, feature_cls=kind)(x)
        found = list(found.values()) if kind == "dict" else found
        assert all(map(torch.equal, found, clean)), kind
    chosen = settled(name, features_only=True, out_indices=(1, 3))
    assert all(map(torch.equal, chosen(x), (clean[1], clean[3])))
    assert chosen.feature_info.channels() == [clean[1].shape[1], clean[3].shape[1]]


@every_nano
def test_intermediates(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    final, maps = net.forward_intermediates(x)
    assert torch.equal(net.forward_head(final), net(x))
    only = net.forward_intermediates(x, indices=2, norm=True, intermediates_only=True)
    assert all(map(torch.equal, only, maps[2:]))
    early, first = net.forward_intermediates(x, indices=[0, -3], stop_early=True)
    assert torch.equal(early, maps[1])
    assert all(map(torch.equal, first, maps[:2]))
    with pytest.raises(ValueError, match="only NCHW"):
        net.forward_intermediates(x, output_fmt="NLC")
    for last in (3, 1):
        assert net.prune_intermediate_layers([0, last]) == [0, last]
        assert torch.equal(net(x), maps[last])
        assert net.num_features == net.head_hidden_size == maps[last].shape[1]
    net.reset_classifier(6, "avg")
    assert net(x).shape == (2, 6)


@every_nano
def test_pruning_keeps_a_head_that_fits(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name)
    logits = net(x)
    assert net.prune_intermediate_layers(2, prune_head=False) == [2, 3]
    assert torch.equal(net(x), logits)


@every_nano
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    """Neither output nor gradients, nor BatchNorm's statistics, which see a batch only once."""
    plain, x = build(name, drop_path_rate=0.2), images(4, 3, 32, 32)
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    assert all(stage.grad_checkpointing for stage in thrifty.stages)
    outputs = []
    for net in (plain, thrifty):
        torch.manual_seed(2)  # the same branches are dropped
        outputs.append(net.train()(x))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for key, weight in plain.named_parameters():
        assert torch.equal(weight.grad, thrifty.get_parameter(key).grad), key
        assert weight.grad.abs().sum() > 0, key
    for key, buffer in plain.named_buffers():
        assert torch.equal(buffer, thrifty.get_buffer(key)), key
    thrifty.set_grad_checkpointing(False)
    assert not any(stage.grad_checkpointing for stage in thrifty.stages)


@every_nano
def test_torchscript(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name, drop_path_rate=0.1, scriptable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it; many users still need it
        scripted = torch.jit.script(net)
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        file.seek(0)
        again = torch.jit.load(file)
    assert torch.allclose(again(x), net(x), atol=1e-6)
    assert again.train()(x).shape == (2, 10)


@every_nano
def test_export(name: str) -> None:
    x, net = images(2, 3, 32, 32), settled(name, drop_path_rate=0.1, exportable=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    for size in (1, 3):
        x = images(size, 3, 32, 32)
        assert torch.allclose(program(x), net(x), atol=1e-5)


@every_nano
def test_compile_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    x, net = images(2, 3, 32, 32), settled(name, drop_path_rate=0.1)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), net(x), atol=1e-6)


@pytest.mark.parametrize("name", ["roadmap_nano_resnet", "roadmap_nano_separate_downsampling"])
def test_compile_a_training_step(name: str) -> None:
    """With gradient checkpointing, down to the operators that a backend gets."""
    torch.compiler.reset()
    plain, x = build(name, depths=(1, 1, 1, 1)), images(4, 3, 32, 32)
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    compiled = torch.compile(thrifty, backend="aot_eager")
    for net in (plain, compiled):
        net(x).square().sum().backward()
    for key, weight in plain.named_parameters():
        assert torch.allclose(weight.grad, thrifty.get_parameter(key).grad, atol=1e-5), key
    for key, buffer in plain.named_buffers():
        assert torch.allclose(buffer, thrifty.get_buffer(key), atol=1e-6), key


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


# Single points


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
    assert set(y.unique().tolist()) == {0.0, pytest.approx(4 / 3)}
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


@pytest.mark.parametrize("size", [(192, 192), (256, 256), (288, 288), (224, 160), (225, 250)])
@pytest.mark.parametrize("stride", [8, 32])
def test_sizes_of_maps_as_in_timm(size: tuple[int, int], stride: int) -> None:
    """The two ends of the road beside timm's own networks."""
    x = images(1, 3, *size, device="meta")
    keywords = {"features_only": True, "device": "meta", "output_stride": stride}
    for ours, theirs, skip in (
        ("roadmap_t_resnet50", "resnet50", 1),  # timm's first feature is within the stem
        ("roadmap_t_separate_downsampling", "convnext_tiny", 0),
    ):
        found, expected = build(ours, **keywords), build(theirs, **keywords)
        assert [one.shape for one in found(x)] == [one.shape for one in expected(x)[skip:]]
        assert found.feature_info.reduction() == expected.feature_info.reduction()[skip:]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilation_as_in_timm(stride: int) -> None:
    """The same weights give the same maps where strides became dilation."""
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import Bottleneck, ResNet

    from convnext_study.endpoints import load
    from convnext_study.net import RoadmapNet
    from convnext_study.roadmap import get_roadmap
    from convnext_study.spec import NetSpec

    small: dict[str, Any] = {"depths": (2, 2, 2, 2)}
    x = images(1, 3, 96, 70)
    end = get_roadmap("t").upto("separate_downsampling").with_(**small, width=8, layer_scale=0.5)
    dims = (8, 16, 32, 64)
    for spec, theirs in (
        (end, ConvNeXt(**small, dims=dims, ls_init_value=0.5, output_stride=stride)),
        (NetSpec(**small), ResNet(Bottleneck, (2, 2, 2, 2), output_stride=stride)),
    ):
        ours = RoadmapNet(spec, output_stride=stride).eval()
        load(ours, theirs.state_dict())
        expected = theirs.eval().forward_features(x)
        assert torch.allclose(ours.forward_features(x), expected, atol=1e-4, rtol=1e-4)
