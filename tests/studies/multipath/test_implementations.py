"""The paths of a multi-path network, and the two forms in which they are computed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.multipath_nets import SHAPES, TINY, meta
from support.nets import images
from torch import nn

from convnext_study.benchmarks import Settings
from convnext_study.studies.multipath import bench
from convnext_study.studies.multipath.network import MultipathNet
from convnext_study.studies.multipath.paths import Paths, PathsSpec
from convnext_study.studies.multipath.spec import LARGE, LARGE_PATHS, SMALL, MultipathSpec


def one_by_one(paths: Paths, paths_spec: PathsSpec) -> list[nn.Sequential]:
    """The same paths as modules of their own, with copies of their weights and statistics."""
    made, shallow = [], paths_spec.depths.count(0)
    for index, depth in enumerate(paths_spec.depths):
        levels: list[Any] = [paths.direct] if depth == 0 else list(paths.levels[: depth + 1])
        layers: list[nn.Module] = []
        for number, level in enumerate(levels):
            kernel = 3 if number else 1
            strided = number == min(depth, 1)
            conv = nn.Conv2d(
                paths_spec.width if number else paths_spec.c_in,
                paths_spec.width,
                kernel,
                paths_spec.stride if strided else 1,
                padding=kernel // 2,
                bias=False,
            )
            norm = nn.BatchNorm2d(paths_spec.width)
            # The paths that reach a level are the last ones of all.
            last = shallow if depth == 0 else len(paths_spec.depths)
            place = index - (last - level.conv.out_channels // paths_spec.width)
            part = slice(place * paths_spec.width, (place + 1) * paths_spec.width)
            conv.weight.data.copy_(level.conv.weight.data[part])
            for key in ("weight", "bias", "running_mean", "running_var"):
                getattr(norm, key).data.copy_(getattr(level.norm, key).data[part])
            layers += [conv, norm, nn.ReLU()]
        made.append(nn.Sequential(*layers))
    return made


@pytest.mark.parametrize("implementation", ["fused", "plain"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "paths_spec",
    [
        PathsSpec(6, 4, (1, 2, 3, 4)),
        PathsSpec(6, 4, (0, 0, 1, 3), stride=2),
        PathsSpec(5, 3, (0, 2, 2)),
    ],
)
def test_paths_are_what_they_say(
    paths_spec: PathsSpec, training: bool, implementation: str
) -> None:
    torch.manual_seed(0)
    paths = Paths(paths_spec, implementation).train(training)
    for norm in (module for module in paths.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    separate = [path.train(training) for path in one_by_one(paths, paths_spec)]
    x = images(3, paths_spec.c_in, 9, 7)
    expected = torch.cat([path(x) for path in separate], 1)
    assert torch.allclose(paths(x), expected, atol=1e-5)
    assert expected.shape[2:] == ((5, 4) if paths_spec.stride == 2 else (9, 7))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("spec", SHAPES)
def test_both_forms_are_one_network(spec: MultipathSpec, training: bool) -> None:
    torch.manual_seed(0)
    fused = MultipathNet(spec, drop_path_rate=0.3, implementation="fused").double()
    plain = MultipathNet(spec, drop_path_rate=0.3, implementation="plain").double()
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
    assert (fused.get_buffer("stem.norm.num_batches_tracked") == 1) == training


def test_path_attention_weighs_whole_paths() -> None:
    net: Any = MultipathNet(TINY.replace(attention="path"))
    attention = net.stages[0].blocks[0].attention
    x = images(2, 16, 5, 5)
    ratio = (attention(x) / x).view(2, 4, -1)
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-3)
    assert (ratio > 0).all() and (ratio < 1).all()
    same_means = x.flatten(2).roll(1, 2).view_as(x)  # means are all that it sees
    assert torch.allclose((attention(same_means) / same_means).view(2, 4, -1), ratio, rtol=1e-3)


def test_a_path_starts_as_if_it_stood_alone() -> None:
    net: Any = MultipathNet(SMALL.replace(modules=1))
    for level in net.stages[1].blocks[0].paths.levels:
        fan_out = 32 * math.prod(level.conv.kernel_size)
        assert level.conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    net.init_weights("trunc_normal")
    for level in net.stages[1].blocks[0].paths.levels:
        assert level.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    with pytest.raises(
        ValueError, match=r"^implementation: 'fast' is unknown; use fused or plain$"
    ):
        MultipathNet(TINY, implementation="fast")


def test_the_default_form_is_the_measured_one() -> None:
    for spec, fused in ((TINY, True), (LARGE_PATHS, True), (SMALL, False), (LARGE, False)):
        net: Any = meta(spec)
        assert net.stages[2].blocks[0].paths.fused == fused


def test_speeds_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.NETWORKS, "small", TINY)
    settings = Settings(
        regime="nano", repeats=2, seconds=0, batch_size=2, threads=1, networks=("small",)
    )
    rows = bench.measure(settings, lambda _: None)
    assert [row["job"] for row in rows] == ["train", "infer"]
    for row in rows:
        assert set(row["images_per_s"]) == {"fused", "plain"}
        for spread in (*row["images_per_s"].values(), row["ratio"]):
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert [one["job"] for one in bench.table(rows).records()] == ["train", "infer"]
