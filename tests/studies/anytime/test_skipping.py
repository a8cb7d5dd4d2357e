"""Skipping: the numbers of the masked dense form by every method, choice, early stop, budget."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.anytime_nets import anytime_net, images
from support.other_device import back, elsewhere, other_device, to_other
from torch import nn
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.studies.anytime import bench
from convnext_study.studies.anytime.bench import coherent_mask
from convnext_study.studies.anytime.masks import MaskedConv2d, ResizedMask, SegmentMask, confidence
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.skipping import compiled, skipper
from convnext_study.studies.anytime.skipping.accelerate import accelerated
from convnext_study.studies.anytime.skipping.skipper import (
    Packed,
    Skipper,
    by_gathering,
    has_kernel,
)

F64 = torch.float64


def in_the_middle(net: AnytimeNet, x: torch.Tensor) -> AnytimeNet:
    """Half of the positions are confident after the first exit; none is right at the threshold."""
    with torch.no_grad():
        net.threshold = float(confidence(net(x)[0]).quantile(0.5))
    return net


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "scale"),
    [(3, 1, 1, 3.0), (3, 2, 1, 0.8), (1, 1, 1, 3.0), (7, 1, 8, 3.2)],
)
@pytest.mark.parametrize("shifted", [False, True])
def test_both_ways_are_the_masked_dense_form(
    kernel: int, stride: int, groups: int, scale: float, share: float, shifted: bool
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8 if groups > 1 else 20, kernel, stride, kernel // 2, groups=groups)
    masked = MaskedConv2d(conv, SegmentMask()).double()
    masked.fill_lambda.data.fill_(scale)
    if shifted:
        masked.shift = torch.randn(conv.out_channels, dtype=F64)
    x = torch.randn(2, 8, 40, 72, dtype=F64).to(memory_format=torch.channels_last)
    mask = ResizedMask(coherent_mask(share, masked.output_size(x), 2))
    assert has_kernel(masked)
    assert compiled.usable(x)
    with torch.no_grad():
        expected = masked.dense_form(x, mask)
        torch.testing.assert_close(Skipper(masked)(masked, x, mask), expected)
        torch.testing.assert_close(Skipper(masked)(masked, x, None), masked.dense_form(x, None))
        if groups == 1:
            torch.testing.assert_close(by_gathering(masked, x, mask), expected)


def test_a_kernel_is_given_nothing_that_does_not_fit() -> None:
    fast = accelerated(anytime_net(masks="confidence").double())
    with torch.no_grad():
        for wrong in (images(), images(dtype=F64)[:, :1]):
            with pytest.raises(ValueError, match="the convolution expects 3 in"):
                fast(wrong)
        single = fast.float()(images())
        for ours, theirs in zip(single, anytime_net(masks="confidence")(images()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    conv, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 8, 8)
    pack, state = Packed(conv, conv.bias), torch.full((2, 8, 8), 2, dtype=torch.uint8)
    for wrong in (state[:1], state.bool(), state[:, ::2], state.mT):
        with pytest.raises(ValueError, match="states"):
            pack.convolve(conv, x, wrong)
    rows = x.to(memory_format=torch.channels_last)
    for onto in (x, rows[:1], rows.double()):
        with pytest.raises(ValueError, match="added"):
            pack.convolve(conv, x, onto=onto)
    depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    with pytest.raises(ValueError, match="depthwise"):
        Packed(depthwise, depthwise.bias).convolve(depthwise, x, relu=True)


def test_threads_share_the_rows() -> None:
    x, net = images((96, 128)), accelerated(anytime_net(masks="confidence"))
    before = torch.get_num_threads()
    with torch.no_grad():
        masks = [coherent_mask(0.4, (24, 32), 2)] * 3
        alone = [output.logits for output in net.run(x, masks)]
        try:
            torch.set_num_threads(3)
            together = [output.logits for output in net.run(x, masks)]
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_without_a_compiler_or_with_a_broken_one_there_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    build = compiled.library.__wrapped__
    assert build() is None
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\nprintf 'one\\ntwo\\n' >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.warns(UserWarning, match=r"c\+\+: skipping .* slower: two$"):
        assert build() is None
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_only_what_its_user_alone_can_write_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged and foreign files are built again; in a foreign folder nothing is read or left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builds: list[Path] = []

    def run(command: list[str]) -> str:
        if "-o" in command:
            builds.append(Path(command[command.index("-o") + 1]))
            shutil.copy(here, builds[-1])
        return ""

    loaded = compiled.library()
    assert loaded is not None
    here = tmp_path / "built.so"
    shutil.copy(loaded._name, here)
    monkeypatch.setattr(compiled, "_run", run)
    build, folder = compiled.library.__wrapped__, tmp_path / "convnext_study"
    assert build() is not None and build() is not None
    assert len(builds) == 1
    (kept,) = folder.glob("*.so")
    kept.chmod(0o777)
    assert build() is not None and len(builds) == 2
    folder.chmod(0o777)
    assert build() is not None and folder not in builds[-1].parents
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    damaged = tmp_path / "other" / "convnext_study" / kept.name
    damaged.parent.mkdir(0o700, parents=True)
    damaged.write_text("no library")
    damaged.chmod(0o600)
    assert build() is not None and len(builds) == 4


def test_kernels_are_built_before_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(compiled, "library", lambda: asked.append(True))
    accelerated(anytime_net(masks="confidence"))
    assert asked


EVERY_WAY = pytest.mark.parametrize("how", ["dense", "kernels", "gathering"])


def fast_by(how: str, net: AnytimeNet, monkeypatch: pytest.MonkeyPatch) -> AnytimeNet:
    """By the kernels; or without them, then all positions are gathered."""
    if how == "gathering":
        monkeypatch.setattr(compiled, "library", lambda: None)
        monkeypatch.setattr(skipper, "FEW", 1.0)
    return accelerated(net, skip=how != "dense")


@EVERY_WAY
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"heads": "original"},
        {"merge": False},
        {"exits": [1, 4]},
        {"backbone": "convnext_atto", "flex_width": 8},
        {"backbone": "roadmap_nano_resnet", "flex_width": 8},
    ],
)
def test_a_skipping_network_gives_the_same_logits(
    how: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(count=2, dtype=F64)
    net = in_the_middle(anytime_net(masks="confidence", **fields).double(), x)
    fast = fast_by(how, net, monkeypatch)
    with torch.no_grad():
        for ours, theirs in zip(fast.run(x), net.run(x), strict=True):
            torch.testing.assert_close(ours.logits, theirs.logits)
            if theirs.computed is not None:
                assert ours.computed is not None
                assert torch.equal(ours.computed, theirs.computed)
    assert not any(isinstance(one, nn.BatchNorm2d) for one in fast.modules())
    weights = {name for name in fast.state_dict() if name.endswith("weight")}
    assert weights <= set(net.state_dict())


def test_norms_with_an_activation_in_them_are_not_folded() -> None:
    x = images(count=2, dtype=F64)
    net = anytime_net(masks="confidence", backbone="regnety_002", flex_width=8).double()
    with torch.no_grad():
        for ours, theirs in zip(accelerated(in_the_middle(net, x))(x), net(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_once_nothing_is_left_later_exits_are_this_one_and_cost_nothing() -> None:
    net = accelerated(anytime_net(masks="confidence"))
    net.threshold = 0.0
    ran: list[str] = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        outputs = list(net.run(images()))
    assert len(outputs) == 4
    assert all(torch.equal(one.logits, outputs[0].logits) for one in outputs)
    assert [bool(one.mask.any()) for one in outputs] == [True, False, False, False]
    assert not [name for name in ran if "stage2" in name or "transition1" in name]
    assert any("layer1" in name for name in ran)


def test_the_bench_times_every_exit_in_every_form() -> None:
    net = anytime_net(masks="confidence")
    clock = time.process_time
    rows = list(bench.compare(net, images(count=1), (0.0, 0.9), 1, clock))
    assert [row["skipped"] for row in rows] == [0.0, 0.9]
    assert set(rows[0]["milliseconds"]) == {"dense", "masked", "skipped"}
    for row in rows:
        for times in row["milliseconds"].values():
            assert times[0] > 0 and times == sorted(times) and len(times) == 4
    assert rows[0]["macs_left"] == [1.0] * 4
    assert rows[1]["macs_left"][3] < 0.5
    with pytest.raises(ValueError, match="no masks"):
        next(bench.compare(anytime_net(), images(), (), 1, clock))


def test_where_skipping_begins_to_pay_lies_between_two_shares() -> None:
    def row(skipped: float, left: float) -> dict[str, Any]:
        return {"skipped": skipped, "time_left": [{"median": left}]}

    assert bench.pays_from([row(0, 1.2), row(0.5, 1.1), row(0.9, 0.7)]) == pytest.approx(0.6)
    assert bench.pays_from([row(0, 1.2), row(0.5, 1.1)]) is None
    assert bench.pays_from([row(0, 0.9)]) == 0


def test_the_command_measures_skipping(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            *("bench", "--parts", "anytime", "--quick", "--repeats", "1", "--threads", "1"),
            *("--networks", "hrnet_digits_narrow", "--image-size", "32x64", "--batch-size", "2"),
            *("--out", str(tmp_path)),
        ],
        terminal_width=160,
    )
    assert done.exit_code == 0, done.exception
    rows = json.loads((tmp_path / "bench.json").read_text())["anytime"]
    assert [(row["skipped"], row["batch"], row["image_size"]) for row in rows] == [
        (0.5, 2, [32, 64]),
        (0.9, 2, [32, 64]),
    ]
    assert {row["kernels"] for row in rows} == {compiled.build_name()}
    assert all(len(times) == 4 for row in rows for times in row["milliseconds"].values())
    words = " ".join(done.stdout.split())
    for word in ("hrnet_digits_narrow", "32x64", "50 %", "90 %", "skipped relative to dense"):
        assert word in words
    (where,) = {row["pays_from"] for row in rows}
    assert ("never" if where is None else f"{100 * where:.0f} %") in words


def test_predictions_come_one_by_one_and_stop_on_request() -> None:
    net = in_the_middle(anytime_net(masks="confidence"), images())
    whole = net(images())
    seen = list(net.anytime(images()))
    assert [one.exit for one in seen] == [1, 2, 3, 4]
    for one, logits in zip(seen, whole, strict=True):
        assert torch.equal(one.logits, logits)
        assert torch.equal(one.labels, logits.argmax(1))
        assert one.confidence.shape == one.labels.shape == one.computed.shape == (2, 16, 16)
    times = [one.milliseconds for one in seen]
    assert times == sorted(times) and times[0] > 0
    assert seen[0].computed.all() and not seen[1].computed.all()
    answers: Iterator[bool] = iter([False, True])
    assert len(list(net.anytime(images(), stop=lambda: next(answers)))) == 2
    assert next(net.anytime(images()[0])).logits.shape[0] == 1


def test_no_exit_is_begun_that_would_come_after_the_budget() -> None:
    net = anytime_net()
    assert [one.exit for one in net.anytime(images(), 0.0)] == [1]
    assert set(net.exit_ms) == {1}
    net.exit_ms = {1: 1.0, 2: 1.0, 3: 1e6, 4: 1.0}
    assert [one.exit for one in net.anytime(images(), 1e5)] == [1, 2]
    with pytest.raises(ValueError, match="training"):
        next(net.train().anytime(images()))


@EVERY_WAY
@pytest.mark.parametrize(
    "fields",
    [{}, {"heads": "original"}, {"backbone": "convnext_atto", "flex_width": 8}, {"merge": False}],
)
def test_nothing_of_skipping_stays_on_the_cpu(
    how: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that is moved after it was made fast, as one is for a GPU."""
    fast = fast_by(how, anytime_net(masks="confidence", **fields), monkeypatch)
    x = images((256, 256))
    with torch.no_grad():
        size = next(fast.run(x)).logits.shape[-2:]
        masks = [coherent_mask(share, (size[0], size[1]), len(x)) for share in (0.5, 0.2, 0.1)]
        here = [output.logits for output in fast.run(x, masks)]
        with other_device():
            moved = to_other(fast)
            there = list(moved.run(elsewhere(x), [elsewhere(mask) for mask in masks]))
            list(moved.run(elsewhere(x)))  # by masks of its own
    for expected, found in zip(here, there, strict=True):
        if how == "kernels":  # there are none elsewhere
            torch.testing.assert_close(back(found.logits), expected, rtol=1e-3, atol=1e-3)
        else:
            assert torch.equal(back(found.logits), expected)
