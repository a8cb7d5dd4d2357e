"""The multi-path networks: their sizes, and what decides them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from support.multipath_nets import SHAPES, TINY, meta
from support.nets import images

from convnext_study import cost
from convnext_study.models.builders import get_builder
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.multipath.baselines import build as build_baseline
from convnext_study.studies.multipath.baselines import resnet18
from convnext_study.studies.multipath.growth import parts
from convnext_study.studies.multipath.network import build
from convnext_study.studies.multipath.paths import PathConv2d
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


@pytest.mark.parametrize("spec", REFERENCE)
def test_sizes_of_the_reference(spec: MultipathSpec) -> None:
    params, macs = REFERENCE[spec]
    net = meta(spec)
    counted = cost.count(net, (3, 32, 32))
    assert (counted.params, round(counted.macs / 1e6, 1)) == (params, macs)
    assert parts(spec).total == params
    for implementation in ("fused", "plain"):
        net = meta(spec, implementation=implementation)
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
        assert parts(spec.replace(attention=kind)).total == parts(spec).total + params


@pytest.mark.parametrize(
    "spec",
    [
        BASIC,
        BASIC.replace(depths=(3,), attention="se", width=20),
        LARGE_PATHS.replace(attention="se", width=3),
        *SHAPES,
    ],
)
def test_parts_are_those_of_the_network(spec: MultipathSpec) -> None:
    net: Any = meta(spec, in_chans=1, num_classes=7)
    counted = parts(spec, in_chans=1, num_classes=7)
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

    base = in_paths(TINY.replace(depths=(2, 2)))
    assert in_paths(TINY.replace(depths=(2,) * 8)) == 4 * base
    assert in_paths(TINY.replace(depths=(2, 2), width=16)) == 16 * base


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
    args = {**TINY.to_dict(), "attention": "path", "implementation": "plain"}
    builder = get_builder("multipath")
    assert inspect.unwrap(builder) is build
    net: Any = builder(args, num_classes=5, drop_path=0.2, init="kaiming")
    assert net.spec == TINY.replace(attention="path")
    assert not net.stages[0].blocks[0].paths.fused
    assert net.stages[2].blocks[0].drop_path.rate == 0.2
    assert net(images(2, 3, 32, 32)).shape == (2, 5)
    for name in ("resnet18", "se_resnet18"):
        baseline = build_baseline({"name": name}, num_classes=3, drop_path=0, init="trunc_normal")
        assert baseline.fc.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert (baseline.layer1[0].se is not None) == (name == "se_resnet18")
    with pytest.raises(SpecError, match=r"^name: no baseline 'resnet81'; did you mean resnet18\?$"):
        build_baseline({"name": "resnet81"}, num_classes=3, drop_path=0, init="kaiming")


def test_spec_and_names_import_without_torch() -> None:
    code = (
        "import sys; from convnext_study.studies.multipath import growth, registry, spec\n"
        "print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
