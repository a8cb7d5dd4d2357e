"""The multi-path networks and their baselines in timm: all that its users expect of a model.

Shapes of every model are checked on the meta device, values on narrow networks of the same layers.
"""

from __future__ import annotations

import itertools

import pytest
import timm
import torch
from support.features import check_features
from support.multipath_nets import (
    BASELINES,
    NARROW,
    SPECS,
    every_kind,
    every_layer,
    every_model,
    narrow,
    outline,
)
from support.nets import build, images
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay

from convnext_study.models.layers import DropPath
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.multipath.spec import STAGES


def test_names() -> None:
    nets = ("small", "small_equal", "large", "large_paths")
    expected = {f"multipath_{net}{kind}" for net in nets for kind in ("", "_pathatt", "_se")}
    expected |= {"multipath_basic", "multipath_resnet18", "multipath_se_resnet18"}
    assert set(timm.list_models("multipath_*")) == expected
    assert timm.list_models("multipath_*", pretrained=True) == []


@every_model
def test_attributes(name: str) -> None:
    net = outline(name)
    config = net.pretrained_cfg
    assert (config["architecture"], config["num_classes"]) == (name, 10)
    assert "Our reconstruction" in config["description"]
    assert "Our reconstruction" in (timm.model_entrypoint(name).__doc__ or "")
    assert "10.3778/j.issn.1002-8331.2110-0083" in config["paper_ids"]
    assert (net.num_classes, net.in_chans, net.drop_rate) == (10, 3, 0.0)
    assert net.num_features == net.head_hidden_size == net.feature_info[-1]["num_chs"]
    weights = net.state_dict()
    assert weights[config["first_conv"] + ".weight"].shape[1:] == (3, 3, 3)
    assert weights[config["classifier"] + ".weight"].shape == (10, net.num_features)
    data = timm.data.resolve_model_data_config(net)
    assert (data["input_size"], data["crop_pct"]) == ((3, 32, 32), 1.0)
    assert (
        net.forward_features(images(1, 3, 32, 32, device="meta")).shape[2:] == config["pool_size"]
    )


@every_model
def test_maps_and_logits_at_sizes_that_no_stride_divides(name: str) -> None:
    net, size = outline(name), (35, 51)
    final, maps = net.forward_intermediates(images(2, 3, *size, device="meta"))
    assert final is maps[-1]
    for one, info in zip(maps, net.feature_info, strict=True):
        reduction = info["reduction"]
        assert tuple(one.shape) == (2, info["num_chs"], *(-(-side // reduction) for side in size))
    assert [info["reduction"] for info in net.feature_info][-3:] == (
        [2, 4, 8] if name in BASELINES else [1, 2, 4]
    )
    assert net.forward_head(final, pre_logits=True).shape == (2, net.head_hidden_size)
    assert net.forward_head(final).shape == (2, 10)


@pytest.mark.parametrize("name", SPECS)
def test_parameter_groups(name: str) -> None:
    net = outline(name)
    assert net.no_weight_decay() == set()
    order = {key: place for place, (key, _) in enumerate(net.named_parameters())}
    for coarse, depth in ((True, STAGES + 2), (False, STAGES * net.spec.modules + 2)):
        groups = group_parameters(net, net.group_matcher(coarse=coarse))
        assert len(groups) == depth
        assert sorted(key for keys in groups.values() for key in keys) == sorted(order)
        ranges = [[order[key] for key in groups[layer]] for layer in sorted(groups)]
        assert all(max(a) < min(b) for a, b in itertools.pairwise(ranges))
    for group in param_groups_layer_decay(net, weight_decay=0.05, layer_decay=0.7):
        assert all((weight.ndim > 1) == (group["weight_decay"] > 0) for weight in group["params"])
    rates = [block.drop_path for stage in net.stages for block in stage.blocks]
    found = [module.rate for module in rates if isinstance(module, DropPath)]
    assert len(found) == len(rates) - 1
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.1)


@every_kind
def test_head(name: str) -> None:
    net, x = narrow(name, drop_rate=0.5), images(2, 3, 32, 32)
    logits, maps = net(x), net.forward_features(x)
    assert torch.equal(net.forward_head(maps), logits)
    features = net.forward_head(maps, pre_logits=True)
    assert torch.equal(net.get_classifier()(features), logits)
    assert not torch.equal(net.train().forward_head(maps), net.forward_head(maps))  # dropout
    net.eval()
    for pool in ("max", "avgmax", "avg"):
        net.reset_classifier(5, pool)
        assert (net.num_classes, net(x).shape) == (5, (2, 5))
    net.reset_classifier(0)
    assert torch.allclose(net(x), features, atol=1e-6)
    net.reset_classifier(0, "")
    assert net(x).shape == maps.shape
    net = build(name, in_chans=1, num_classes=4, **NARROW.get(name, {}))
    assert net(images(2, 1, 32, 32)).shape == (2, 4)


@every_layer
def test_features_are_the_stages_outputs_and_stay_so(name: str) -> None:
    x = images(2, 3, 32, 32)
    clean = check_features(narrow, name, x)
    chosen = narrow(name, features_only=True, out_indices=(0, 2))
    assert all(map(torch.equal, chosen(x), (clean[0], clean[2])))
    assert chosen.feature_info.channels() == [clean[0].shape[1], clean[2].shape[1]]


@every_layer
def test_intermediates_and_pruning(name: str) -> None:
    x, net = images(2, 3, 32, 32), narrow(name)
    logits = net(x)
    final, maps = net.forward_intermediates(x)
    assert torch.equal(net.forward_head(final), logits)
    only = net.forward_intermediates(x, indices=2, intermediates_only=True)
    assert all(map(torch.equal, only, maps[1:]))
    early, first = net.forward_intermediates(x, indices=[0, -2], stop_early=True)
    assert torch.equal(early, maps[1])
    assert all(map(torch.equal, first, maps[:2]))
    with pytest.raises(ValueError, match="only NCHW"):
        net.forward_intermediates(x, output_fmt="NLC")
    assert net.prune_intermediate_layers(2, prune_head=False) == [1, 2]
    assert torch.equal(net(x), logits)
    assert net.prune_intermediate_layers([0, 1]) == [0, 1]
    assert torch.equal(net(x), maps[1])
    net.reset_classifier(6, "avg")
    assert net(x).shape == (2, 6)


@pytest.mark.parametrize("name", BASELINES)
def test_features_of_baselines(name: str) -> None:
    net = build(name, features_only=True, device="meta")
    assert net.feature_info.reduction() == [1, 1, 2, 4, 8]
    maps = net(images(1, 3, 32, 32, device="meta"))
    assert [32 // one.shape[-1] for one in maps] == [1, 1, 2, 4, 8]
    assert [one.shape[1] for one in maps] == net.feature_info.channels()


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(TypeError, match=r"^multipath_small: no argument widht; .*width\?$"):
        timm.create_model("multipath_small", widht=9)
    with pytest.raises(SpecError, match=r"^width: 0; .*$"):
        timm.create_model("multipath_small", width=0)
    with pytest.raises(ValueError, match=r"^global_pool: 'median' is unknown; .*$"):
        timm.create_model("multipath_small", global_pool="median")


def test_fields_of_the_network_by_keyword() -> None:
    net = timm.create_model("multipath_small", attention="path", depths=(2, 2, 3, 3), device="meta")
    assert net.spec == SPECS["multipath_small_equal_pathatt"]
    assert {weight.device.type for weight in net.parameters()} == {"meta"}
