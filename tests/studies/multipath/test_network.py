"""The multi-path networks: their sizes, what decides them, and their form in timm."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.multipath_nets import SHAPES, TINY, meta
from support.nets import MULTIPATH, NARROW, images, settled
from torch import nn

from convnext_study import cost
from convnext_study.models.builders import get_builder
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.multipath.growth import FACTORS, exponent, growth
from convnext_study.studies.multipath.network import build, build_baseline, resnet18
from convnext_study.studies.multipath.spec import (
    BASIC,
    LARGE,
    LARGE_PATHS,
    SMALL,
    SMALL_EQUAL,
    MultipathSpec,
)

# Parameters and millions of MACs at 32x32 that the reconstruction was laid down with.
REFERENCE = {
    SMALL: (1_325_002, 206.2),
    SMALL_EQUAL: (1_325_002, 206.2),
    LARGE: (8_231_530, 1282.4),
    LARGE_PATHS: (8_221_322, 1243.0),
}


def size(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("spec", REFERENCE)
def test_sizes_of_the_reference(spec: MultipathSpec) -> None:
    params, macs = REFERENCE[spec]
    counted = cost.count(meta(spec), (3, 32, 32))
    assert (counted.params, round(counted.macs / 1e6, 1)) == (params, macs)
    for implementation in ("fused", "plain"):
        net = meta(spec, implementation=implementation)
        assert cost.count(net, (3, 30, 30)).macs == cost.count_torch(net, (3, 30, 30))
        assert cost.count(net, (3, 32, 32)) == counted


@pytest.mark.parametrize(
    ("spec", "more"), [(SMALL, {"path": 240, "se": 22_456}), (LARGE, {"path": 240, "se": 136_780})]
)
def test_attention_adds(spec: MultipathSpec, more: dict[str, int]) -> None:
    for kind, params in more.items():
        assert size(meta(spec.replace(attention=kind))) == size(meta(spec)) + params


def test_baselines() -> None:
    with torch.device("meta"):
        plain, se = resnet18(), resnet18(se=True)
    assert (size(plain), size(se)) == (11_173_962, 11_263_042)
    assert se.layer2[0].se.fc1.out_channels == 128 // 16
    assert round(4e-6 * size(meta(BASIC)), 1) == 5.3


@pytest.mark.parametrize("way", ["paths", "channels"])
def test_widening_is_counted(way: str) -> None:
    """Without the code that builds the network, and to its last parameter."""
    for factor in FACTORS:
        paths = {"depths": tuple(sorted(SMALL.depths * factor))}
        net = meta(SMALL.replace(**paths if way == "paths" else {"width": 16 * factor}))
        spatial = sum(
            size(level)
            for level in net.modules()
            if getattr(getattr(level, "conv", None), "kernel_size", None) == (3, 3)
        )
        found = growth(way, factor)
        assert (found.total, found.conv3) == (size(net), spatial - size(net.stem))
    power = {"paths": 1.0, "channels": pytest.approx(2, abs=0.01)}
    assert exponent(way, "conv3") == power[way]
    # What the paper's claim leaves out: 1x1 convolutions join all channels either way.
    assert exponent(way, "conv1") == pytest.approx(2, abs=0.01)
    assert growth("paths", 8).conv1 == growth("channels", 8).conv1
    assert 1 < exponent("paths", "total") < exponent("channels", "total")


def test_spec_is_plain_data() -> None:
    for spec in (*REFERENCE, BASIC, *SHAPES):
        again = MultipathSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "dense"}, "block: 'dense'"),
        ({"attention": ["se"]}, r"attention: \['se'\]"),
        ({"width": 0}, "width: 0"),
        ({"modules": True}, "modules: True"),
        ({"depths": ()}, r"depths: \(\)"),
        ({"depths": 3}, "depths: 3"),
        ({"depths": (1, -1)}, r"depths: \(1, -1\)"),
        ({"depths": (2, 1)}, r"depths: \(2, 1\); .* as \(1, 2\)"),
        ({"depths": (0, 0)}, r"depths: \(0, 0\)"),
        ({"block": "basic"}, r"depths: \(1, 2, 3, 4\); a basic block has one path"),
        ({"block": "basic", "depths": (2,), "attention": "path"}, "attention: a basic block"),
        ({"dephts": (1,)}, r"dephts: no such field of a multi-path network; .* depths\?"),
    ],
)
def test_bad_specs_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"^{message}.*$"):
        MultipathSpec.from_dict(fields)


def test_builders_of_records() -> None:
    args = {**TINY.to_dict(), "attention": "path", "implementation": "plain"}
    builder = get_builder("multipath")
    assert inspect.unwrap(builder) is build
    net: Any = builder(args, num_classes=5, drop_path=0.2, init="kaiming")
    assert net.spec == TINY.replace(attention="path")
    assert not net.stages[0].blocks[0].paths.fused
    assert net.stages[2].blocks[0].drop_path.rate == 0.2
    assert net(images(2, 3, 32, 32)).shape == (2, 5)
    for name in ("resnet18", "se_resnet18"):
        baseline: Any = build_baseline(
            {"name": name}, num_classes=3, drop_path=0, init="trunc_normal"
        )
        assert baseline.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert (baseline.layer1[0].se is not None) == (name == "se_resnet18")
    with pytest.raises(SpecError, match=r"^name: no baseline 'resnet81'; did you mean resnet18\?$"):
        build_baseline({"name": "resnet81"}, num_classes=3, drop_path=0, init="kaiming")


# In timm, beside what the tests of every model check


def test_names() -> None:
    nets = ("small", "small_equal", "large", "large_paths")
    expected = {f"multipath_{net}{kind}" for net in nets for kind in ("", "_pathatt", "_se")}
    expected |= {"multipath_basic", "multipath_resnet18", "multipath_se_resnet18"}
    assert set(MULTIPATH) == expected
    assert timm.list_models("multipath_*", pretrained=True) == []


@pytest.mark.parametrize("name", [*NARROW, "multipath_se_resnet18"])
def test_weights_go_through_timm(name: str, tmp_path: Path) -> None:
    x, net, shape = images(2, 3, 32, 32), settled(name), NARROW.get(name, {})
    file, folder = tmp_path / "net.pth", tmp_path / "hub"
    torch.save({"model": net.state_dict(), "epoch": 3}, file)
    loaded = timm.create_model(name, checkpoint_path=str(file), **shape).eval()
    assert torch.equal(loaded(x), net(x))
    timm.models.save_for_hf(net, str(folder), model_args=shape, safe_serialization=True)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(again(x), net(x))


def test_synchronised_norms_are_called_as_such() -> None:
    """Even in the plain form, which would otherwise take slices of them and never synchronise."""
    name, x = "multipath_large_paths_se", images(2, 3, 32, 32)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(settled(name))
    called: list[nn.Module] = []
    norms = [module for module in net.modules() if isinstance(module, nn.SyncBatchNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda module, *_: called.append(module))
    assert torch.allclose(net(x), settled(name)(x), atol=1e-5)
    assert len(called) == len(norms) > 9


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(TypeError, match=r"^multipath_small: no argument widht; .*width\?$"):
        timm.create_model("multipath_small", widht=9)
    with pytest.raises(SpecError, match=r"^width: 0; .*$"):
        timm.create_model("multipath_small", width=0)
