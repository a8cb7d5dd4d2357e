"""With `deterministic`, the same seed gives the same bits, stopped and resumed or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu.device import DEVICE, on_device
from support.runs import make_tiny_run
from support.training import assert_same, cut_off

from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

pytestmark = on_device


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("step", ["resnet", "depthwise_conv", "layer_norm"])
def test_twice_and_resumed(step: str, precision: str, tmp_path: Path) -> None:
    run = make_tiny_run(step, precision=precision, mixup=0.8, cutmix=1.0)
    machine = Runtime(device=DEVICE, deterministic=True)
    train(run, tmp_path / "one", machine)
    train(run, tmp_path / "two", machine)
    cut_off(run, tmp_path / "resumed", 11, machine)
    train(run, tmp_path / "resumed", machine)
    assert_same(tmp_path / "one", tmp_path / "two")
    assert_same(tmp_path / "one", tmp_path / "resumed")


@pytest.mark.parametrize("machine", [{"compile": True}, {"workers": 2}, {"channels_last": False}])
def test_in_other_ways_of_working(machine: dict[str, bool | int], tmp_path: Path) -> None:
    run = make_tiny_run("layer_norm", precision="bf16", image_size=40)  # which readers resize to
    settings = Runtime(device=DEVICE, deterministic=True, **machine)  # type: ignore[arg-type]
    train(run, tmp_path / "one", settings)
    cut_off(run, tmp_path / "resumed", 11, settings)
    train(run, tmp_path / "resumed", settings)
    assert_same(tmp_path / "one", tmp_path / "resumed")


def test_beside_the_cpu(tmp_path: Path) -> None:
    """Another device rounds otherwise: a few images of 360 are told apart, and no more."""
    run = make_tiny_run("layer_norm", drop_path=0.0)
    one = train(run, tmp_path / "cpu", Runtime())
    other = train(run, tmp_path / "device", Runtime(device=DEVICE))
    assert abs(one.value - other.value) < 2.0
