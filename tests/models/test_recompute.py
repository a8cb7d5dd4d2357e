"""A batch counts once in running statistics, also where blocks are run again for gradients."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.nets import build, compare_a_step, images
from support.runs import make_tiny_run
from support.training import weights
from torch import nn

from convnext_study.models.builders import TIMM_BUILDER
from convnext_study.models.recompute import count_once
from convnext_study.runs.records import ModelRef
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

PATHS = {"width": 4, "modules": 1, "depths": (0, 1, 2)}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "BatchNorm, dense": ("roadmap_nano_resnet", {}),
    "BatchNorm, depthwise": ("roadmap_nano_kernel_7", {}),
    "paths, fused": ("multipath_small", {"implementation": "fused", **PATHS}),
    "paths, plain": ("multipath_small", {"implementation": "plain", **PATHS}),
}
# Norms alone and with activations in them, in blocks of three families.
THEIRS = ("test_resnet", "test_efficientnet", "test_byobnet", "multipath_se_resnet18")


@pytest.mark.parametrize("kind", OURS)
def test_synchronised_norms_of_this_package(kind: str) -> None:
    """With one process they count as with several; of others `test_timm_contract.py` speaks."""
    name, fields = OURS[kind]
    nets = [
        nn.SyncBatchNorm.convert_sync_batchnorm(build(name, drop_path_rate=0.2, **fields))
        for _ in range(2)
    ]
    compare_a_step(*nets)
    for norm in nets[1].modules():  # left as it was found
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.momentum == 0.1 and norm.num_batches_tracked == 1


@pytest.mark.parametrize("synchronised", [False, True])
@pytest.mark.parametrize("name", THEIRS)
def test_networks_of_timm(name: str, synchronised: bool) -> None:
    plain, thrifty = build(name), build(name)
    if synchronised:
        plain, thrifty = map(nn.SyncBatchNorm.convert_sync_batchnorm, (plain, thrifty))
    assert count_once(thrifty) > 5
    compare_a_step(plain, copy.deepcopy(thrifty))  # the engine's moving average is a copy


def test_evonorm_counts_once() -> None:
    """A norm of timm's that is no BatchNorm and has running statistics all the same."""
    from timm.layers import EvoNorm2dB0

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), EvoNorm2dB0(8), nn.Conv2d(8, 4, 3))

    plain, thrifty = net(), net()
    assert count_once(thrifty) == 1
    x = images(4, 3, 8, 8)
    plain(x).sum().backward()
    timm.models.checkpoint(thrifty, x).sum().backward()
    variance = plain.get_buffer("1.running_var")
    assert torch.equal(variance, thrifty.get_buffer("1.running_var"))
    assert not torch.equal(variance, torch.ones(8))


def test_the_engine_trains_the_same_network_of_timm(tmp_path: Path) -> None:
    model = ModelRef(builder=TIMM_BUILDER, args={"name": "test_resnet"})
    run = make_tiny_run(epochs=1, global_batch_size=256).model_copy(update={"model": model})
    train(run, tmp_path / "plain", Runtime())
    train(run, tmp_path / "thrifty", Runtime(grad_checkpointing=True))
    plain, thrifty = weights(tmp_path / "plain"), weights(tmp_path / "thrifty")
    assert any(key.endswith("running_var") for key in plain)
    assert [key for key in plain if not torch.equal(plain[key], thrifty[key])] == []
