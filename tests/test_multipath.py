"""The multi-path networks: their sizes, their two forms, and what decides them."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from nets import images
from torch import Tensor, nn

from convnext_study import cost
from convnext_study.multipath.baselines import build as build_baseline
from convnext_study.multipath.baselines import resnet18
from convnext_study.multipath.bench import compare_forms
from convnext_study.multipath.net import MultipathNet, build
from convnext_study.multipath.parts import parts
from convnext_study.multipath.paths import PathConv2d, Paths, PathsPlan
from convnext_study.multipath.spec import (
    BASIC,
    LARGE,
    LARGE_PATHS,
    SMALL,
    SMALL_EQUAL,
    MultipathSpec,
)
from convnext_study.spec import SpecError
from convnext_study.training.task import resolve

# Parameters and millions of MACs at 32x32 that the reconstruction was laid down with.
REFERENCE = {
    SMALL: (1_325_002, 206.2),
    SMALL_EQUAL: (1_325_002, 206.2),
    LARGE: (8_231_530, 1282.4),
    LARGE_PATHS: (8_221_322, 1243.0),
}
TINY = MultipathSpec(width=4, modules=1)
SHAPES = (
    TINY,
    TINY.with_(depths=(2, 2, 3, 3), attention="path"),
    TINY.with_(depths=(0, 0, 1, 3), attention="se", width=8),
    TINY.with_(depths=(2,)),
)


def meta(spec: MultipathSpec, **kwargs: Any) -> MultipathNet:
    with torch.device("meta"):
        return MultipathNet(spec, **kwargs)


@pytest.mark.parametrize("spec", REFERENCE)
def test_sizes_of_the_reference(spec: MultipathSpec) -> None:
    params, macs = REFERENCE[spec]
    net = meta(spec)
    counted = cost.count(net, (3, 32, 32))
    assert (counted.params, round(counted.macs / 1e6, 1)) == (params, macs)
    assert parts(spec).total == params
    for form in ("fused", "plain"):
        net = meta(spec, form=form)
        assert cost.count(net, (3, 30, 30)).macs == cost.count_torch(net, (3, 30, 30))
        assert cost.count(net, (3, 32, 32)) == counted


def test_modules_and_paths_of_the_reference() -> None:
    small = parts(SMALL)
    totals = [module.total for module in small.modules]
    assert totals == [31_808, 31_808, 126_336, 126_080, 502_528, 502_016]
    assert (small.stem, small.head) == (1_856, 2_570)
    assert small.modules[0].paths == (3_392, 5_728, 8_064, 10_400)
    assert (small.modules[0].fuse, small.modules[0].shortcut) == (4_224, 0)
    # Equal depths move parameters among paths and change no total.
    assert [module.total for module in parts(SMALL_EQUAL).modules] == totals


@pytest.mark.parametrize(
    ("spec", "more"), [(SMALL, {"path": 240, "se": 22_456}), (LARGE, {"path": 240, "se": 136_780})]
)
def test_attention_adds(spec: MultipathSpec, more: dict[str, int]) -> None:
    for kind, params in more.items():
        assert parts(spec.with_(attention=kind)).total == parts(spec).total + params


@pytest.mark.parametrize(
    "spec",
    [
        BASIC,
        BASIC.with_(depths=(3,), attention="se", width=20),
        LARGE_PATHS.with_(attention="se", width=3),
        *SHAPES,
    ],
)
def test_parts_are_those_of_the_network(spec: MultipathSpec) -> None:
    net, counted = meta(spec, in_chans=1, num_classes=7), parts(spec, in_chans=1, num_classes=7)
    found = [sum(p.numel() for p in block.parameters()) for s in net.stages for block in s.blocks]
    assert found == [module.total for module in counted.modules]
    assert sum(p.numel() for p in net.parameters()) == counted.total


def test_baselines() -> None:
    with torch.device("meta"):
        plain, se = resnet18(), resnet18(se=True)
    assert cost.count(plain, (3, 32, 32)).params == 11_173_962
    assert cost.count(se, (3, 32, 32)).params == 11_263_042
    assert se.layer2[0].se.fc1.out_channels == 128 // 16
    megabytes = 4e-6 * cost.count(meta(BASIC), (3, 32, 32)).params
    assert round(megabytes, 1) == 5.3
    with pytest.raises(ValueError, match=r"^output_stride: 1; "):
        resnet18(output_stride=1)


def test_widening_by_paths_and_by_channels() -> None:
    """At one path width the 3x3 convolutions grow with the paths, and with the width squared."""

    def in_paths(spec: MultipathSpec) -> int:
        net = meta(spec)
        convs = [conv for conv in net.modules() if isinstance(conv, PathConv2d)]
        return sum(conv.weight.numel() for conv in convs if conv.kernel_size == (3, 3))

    base = in_paths(TINY.with_(depths=(2, 2)))
    assert in_paths(TINY.with_(depths=(2,) * 8)) == 4 * base
    assert in_paths(TINY.with_(depths=(2, 2), width=16)) == 16 * base


def one_by_one(paths: Paths, plan: PathsPlan) -> list[nn.Sequential]:
    """The same paths as modules of their own, with copies of their weights and statistics."""
    made, shallow = [], plan.depths.count(0)
    for index, depth in enumerate(plan.depths):
        levels = [paths.direct] if depth == 0 else list(paths.levels[: depth + 1])
        layers: list[nn.Module] = []
        for number, level in enumerate(levels):
            kernel = 3 if number else 1
            strided = number == min(depth, 1)
            reach = plan.dilations[number > 1] if number else 0
            conv = nn.Conv2d(
                plan.width if number else plan.c_in,
                plan.width,
                kernel,
                plan.stride if strided else 1,
                padding=reach,
                dilation=max(reach, 1),
                bias=False,
            )
            norm = nn.BatchNorm2d(plan.width)
            # The paths that reach a level are the last ones of all.
            last = shallow if depth == 0 else len(plan.depths)
            place = index - (last - level.conv.out_channels // plan.width)
            part = slice(place * plan.width, (place + 1) * plan.width)
            conv.weight.data.copy_(level.conv.weight.data[part])
            for key in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, key).data.copy_(getattr(level.norm, key).data[part])
            layers += [conv, norm, nn.ReLU()]
        made.append(nn.Sequential(*layers))
    return made


@pytest.mark.parametrize("form", ["fused", "plain"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "plan",
    [
        PathsPlan(6, 4, (1, 2, 3, 4)),
        PathsPlan(6, 4, (0, 0, 1, 3), stride=2),
        PathsPlan(5, 3, (0, 2, 2), dilations=(1, 2)),
    ],
)
def test_paths_are_what_they_say(plan: PathsPlan, training: bool, form: str) -> None:
    torch.manual_seed(0)
    paths = Paths(plan, form).train(training)
    for norm in (module for module in paths.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data.uniform_(0.5, 1.5)
    separate = [path.train(training) for path in one_by_one(paths, plan)]
    x = images(3, plan.c_in, 9, 7)
    expected = torch.cat([path(x) for path in separate], 1)
    assert torch.allclose(paths(x), expected, atol=1e-5)
    assert expected.shape[2:] == ((5, 4) if plan.stride == 2 else (9, 7))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("spec", SHAPES)
def test_both_forms_are_one_network(spec: MultipathSpec, training: bool) -> None:
    torch.manual_seed(0)
    fused = MultipathNet(spec, drop_path_rate=0.3, form="fused").double()
    plain = MultipathNet(spec, drop_path_rate=0.3, form="plain").double()
    plain.load_state_dict(fused.state_dict())
    outputs, gradients = [], []
    for net in (fused, plain):
        torch.manual_seed(1)  # the same branches are dropped
        output = net.train(training)(images(4, 3, 14, 18).double())
        output.square().sum().backward()
        outputs.append(output)
        gradients.append([weight.grad for weight in net.parameters()])
    assert torch.allclose(*outputs)
    assert all(map(torch.allclose, *gradients))
    assert list(fused.state_dict()) == list(plain.state_dict())
    for key, buffer in fused.named_buffers():
        assert torch.allclose(buffer, plain.get_buffer(key)), key
    assert (fused.stem.norm.num_batches_tracked == 1) == training


def test_plain_form_under_gradient_checkpointing() -> None:
    """Its own batch statistics see a batch only once, too."""
    plain = MultipathNet(TINY, form="plain")
    thrifty = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    for net in (plain, thrifty):
        net(images(4, 3, 16, 16)).sum().backward()
    for key, buffer in plain.named_buffers():
        assert torch.equal(buffer, thrifty.get_buffer(key)), key


@pytest.mark.parametrize("output_stride", [1, 2])
@pytest.mark.parametrize("spec", [TINY, TINY.with_(depths=(0, 2), modules=2), BASIC.with_(width=6)])
def test_dilation_samples_what_strides_did(spec: MultipathSpec, output_stride: int) -> None:
    torch.manual_seed(0)
    usual = MultipathNet(spec).eval()
    dense = MultipathNet(spec, output_stride=output_stride).eval()
    dense.load_state_dict(usual.state_dict())
    x = images(1, 3, 24, 20)
    every = 4 // output_stride
    found = dense.forward_features(x)
    assert torch.allclose(found[..., ::every, ::every], usual.forward_features(x), atol=1e-5)
    assert found.shape[2:] == (24 // output_stride, 20 // output_stride)


def test_path_attention_weighs_whole_paths() -> None:
    net = MultipathNet(TINY.with_(attention="path"))
    attention = net.stages[0].blocks[0].attention
    x = images(2, 16, 5, 5)
    ratio = (attention(x) / x).view(2, 4, -1)
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-3)
    assert (ratio > 0).all() and (ratio < 1).all()
    same_means = x.flatten(2).roll(1, 2).view_as(x)  # means are all that it sees
    assert torch.allclose((attention(same_means) / same_means).view(2, 4, -1), ratio, rtol=1e-3)


def test_spec_is_plain_data() -> None:
    for spec in (*REFERENCE, BASIC, *SHAPES):
        again = MultipathSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert hash(again) == hash(spec)
    assert list(SMALL.to_dict()) == [field.name for field in dataclasses.fields(MultipathSpec)]
    assert SMALL.widths() == (64, 128, 256)
    assert LARGE.path_widths() == (40, 80, 160)
    assert LARGE_PATHS.widths() == (128, 256, 512)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "dense"}, "block: 'dense' is unknown; use one of multipath, basic"),
        ({"attention": ["se"]}, r"attention: \['se'\] is unknown; use one of none, path, se"),
        ({"width": 0}, "width: 0; use a whole number of at least 1"),
        ({"modules": True}, "modules: True; use a whole number of at least 1"),
        ({"depths": ()}, r"depths: \(\); use one number for each path"),
        ({"depths": 3}, "depths: 3; use one number for each path"),
        ({"depths": (1, -1)}, r"depths: \(1, -1\); use whole numbers of at least 0"),
        ({"depths": (2, 1)}, r"depths: \(2, 1\); put them in ascending order, as \(1, 2\)"),
        ({"depths": (0, 0)}, r"depths: \(0, 0\); one path at least needs a 3x3 convolution"),
        ({"block": "basic"}, r"depths: \(1, 2, 3, 4\); a basic block has one path, .*"),
        ({"block": "basic", "depths": (2,), "attention": "path"}, "attention: a basic block .*"),
        ({"dephts": (1,)}, r"dephts: no such field of a multi-path network; .* depths\?"),
    ],
)
def test_bad_specs_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}$"):
        MultipathSpec.from_dict(fields)


def test_builders_of_records() -> None:
    args = {**TINY.to_dict(), "attention": "path", "form": "plain"}
    builder = resolve("convnext_study.multipath.net:build")
    assert builder is build
    net = builder(args, num_classes=5, drop_path=0.2, init="kaiming")
    assert net.spec == TINY.with_(attention="path")
    assert not net.stages[0].blocks[0].paths.fused
    assert net.stages[2].blocks[0].drop_path.rate == 0.2
    assert net(images(2, 3, 32, 32)).shape == (2, 5)
    for name in ("resnet18", "se_resnet18"):
        baseline = build_baseline({"name": name}, num_classes=3, drop_path=0, init="trunc_normal")
        assert baseline.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert (baseline.layer1[0].se is not None) == (name == "se_resnet18")
    with pytest.raises(SpecError, match=r"^name: no baseline 'resnet81'; did you mean resnet18\?$"):
        build_baseline({"name": "resnet81"}, num_classes=3, drop_path=0, init="kaiming")


def test_a_path_starts_as_if_it_stood_alone() -> None:
    net = MultipathNet(SMALL.with_(modules=1))
    for level in net.stages[1].blocks[0].paths.levels:
        fan_out = 32 * math.prod(level.conv.kernel_size)
        assert level.conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    net.init_weights("trunc_normal")
    for level in net.stages[1].blocks[0].paths.levels:
        assert level.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    with pytest.raises(ValueError, match=r"^form: 'fast' is unknown; use fused or plain$"):
        MultipathNet(TINY, form="fast")


def test_the_default_form_is_the_measured_one() -> None:
    for spec, fused in ((TINY, True), (LARGE_PATHS, True), (SMALL, False), (LARGE, False)):
        assert meta(spec).stages[2].blocks[0].paths.fused == fused


def test_speeds_are_measured() -> None:
    for train in (True, False):
        speed = compare_forms(TINY, train=train, batch=2, rounds=2)
        assert set(speed.images_per_s) == {"fused", "plain"}
        assert min(*speed.images_per_s.values(), speed.ratio) > 0


def test_spec_and_names_import_without_torch() -> None:
    code = (
        "import sys; from convnext_study.multipath import parts, spec, zoo\n"
        "print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    for spec in (TINY.with_(attention="path"), LARGE_PATHS.with_(attention="se", modules=1), BASIC):
        net = MultipathNet(spec)
        loss: Tensor = net(images(4, 3, 16, 16)).square().sum()
        loss.backward()
        for key, weight in net.named_parameters():
            assert weight.grad is not None and weight.grad.abs().sum() > 0, key
