"""The pruning study's networks in timm, beside what the tests of every model check.

Shapes are checked on the meta device, of a network of each family and where there is time of all,
values on narrow networks of the families.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support import compilers
from support.features import check_features
from support.nets import build, images, settled, walk
from support.pruning_nets import NARROW, OURS

from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.pruning import blocks
from convnext_study.studies.pruning.published import MODELS

every_model = walk(MODELS, NARROW)
every_family = pytest.mark.parametrize("name", NARROW)
every_own = pytest.mark.parametrize("name", OURS)


@functools.cache
def outline(name: str) -> Any:
    return build(name, device="meta")


def narrow(name: str, **kwargs: Any) -> Any:
    return settled(name, **NARROW[name], num_classes=10, **kwargs)


def test_names() -> None:
    assert len(timm.list_models("pruning_*")) == 45
    assert timm.list_models("pruning_*", pretrained=True) == []


@every_model
def test_attributes(name: str) -> None:
    net, cfg = outline(name), MODELS[name].cfg
    config, classes = net.pretrained_cfg, cfg["num_classes"]
    assert (config["architecture"], config["num_classes"]) == (name, classes)
    assert (net.num_classes, net.in_chans) == (classes, 3)
    assert net.num_features == net.feature_info[-1]["num_chs"]
    weights = net.state_dict()
    assert weights[config["first_conv"] + ".weight"].shape[1] == 3
    expected = (classes, net.head_hidden_size)
    assert weights[config["classifier"] + ".weight"].shape == expected
    data = timm.data.resolve_model_data_config(net)
    assert data["input_size"] == cfg["input_size"]
    maps = net.forward_features(torch.zeros(1, *cfg["input_size"], device="meta"))
    assert maps.shape[2:] == config["pool_size"]
    assert "1810.05270" in config["paper_ids"]


@every_model
def test_maps_and_logits_at_sizes_that_no_stride_divides(name: str) -> None:
    net, size = outline(name), (70, 103)
    final, maps = net.forward_intermediates(images(2, 3, *size, device="meta"))
    for one, info in zip(maps, net.feature_info, strict=True):
        rounded = [
            (side // info["reduction"], -(-side // info["reduction"])) for side in size
        ]  # VGG's pooling drops the rest, strides do not
        assert one.shape[:2] == (2, info["num_chs"])
        assert all(side in both for side, both in zip(one.shape[2:], rounded, strict=True))
    assert net.forward_head(final, pre_logits=True).shape == (2, net.head_hidden_size)
    assert net.forward_head(final).shape == (2, net.num_classes)


def test_a_head_that_flattens_the_map() -> None:
    name = "pruning_vgg11_slim_imagenet"
    net, x = narrow(name), images(2, 3, 32, 32)
    assert net.forward_head(net.forward_features(x), pre_logits=True).shape == (2, 9)
    net.reset_classifier(7)
    assert net(x).shape == (2, 7)
    with pytest.raises(ValueError, match=r"^global_pool: '' needs num_classes 0"):
        net.reset_classifier(7, "")
    net.reset_classifier(0, "")
    assert net(x).shape == net.forward_features(x).shape


@every_own
def test_features_are_the_stages_outputs_and_stay_so(name: str) -> None:
    x, net = images(2, 3, 32, 32), narrow(name)
    check_features(narrow, name, x)
    assert torch.equal(net.forward_head(net.forward_features(x)), net(x))
    grey = build(name, **NARROW[name], in_chans=1, num_classes=4)
    assert grey(x[:, :1]).shape == (2, 4)


@walk(OURS, ("pruning_vgg16", "pruning_preresnet164"))
def test_compilers(name: str) -> None:
    net = narrow(name)
    compilers.trace_and_script(net)
    compilers.script(net)
    compilers.export(net)
    compilers.compile_forward(net)


@pytest.mark.parametrize("name", ["pruning_resnet56", "pruning_densenet_bc_100"])
def test_feature_extractors_of_timm_can_be_scripted(name: str) -> None:
    compilers.script_features(build(name, **NARROW[name], features_only=True, feature_cls="fx"))


@walk(("pruning_vgg16", "pruning_resnet50_2x", "pruning_preresnet164"), ("pruning_vgg16",))
def test_compile_a_step_in_one_graph(name: str) -> None:
    compilers.compile_a_step(narrow(name))


def test_annotations_of_forward_are_types() -> None:
    assert compilers.forwards_with_text(blocks) == []


@every_family
def test_weights_go_through_timm(name: str, tmp_path: Path) -> None:
    x, net = images(2, 3, 32, 32), narrow(name)
    file = tmp_path / "net.pth"
    torch.save({"model": net.state_dict(), "epoch": 3}, file)
    given = {**NARROW[name], "num_classes": 10}
    loaded = timm.create_model(name, checkpoint_path=str(file), **given).eval()
    assert torch.equal(loaded(x), net(x))


def test_whole_networks_take_the_weights_of_timms() -> None:
    x = images(1, 3, 64, 64)
    for ours, theirs in (("pruning_resnet34", "resnet34"), ("pruning_resnet50", "resnet50")):
        net, other = build(ours).eval(), build(theirs).eval()
        net.load_state_dict(other.state_dict())
        assert torch.equal(net(x), other(x))


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(TypeError, match=r"^pruning_vgg16: no argument widht; .*widths\?$"):
        timm.create_model("pruning_vgg16", widht=9)
    with pytest.raises(SpecError, match=r"^widths: .*$"):
        timm.create_model("pruning_vgg16", widths=(0,))
    with pytest.raises(ValueError, match=r"^output_stride: 8; .*$"):
        timm.create_model("pruning_vgg16", output_stride=8)
    with pytest.raises(ValueError, match=r"^drop_path_rate: a densenet has no residual .*$"):
        timm.create_model("pruning_densenet40", drop_path_rate=0.1)
