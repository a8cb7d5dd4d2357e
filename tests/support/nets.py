"""Networks for the tests of the contract with timm."""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Iterable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import convnext_study  # noqa: F401  registers the models
from convnext_study.roadmap.spec import CHOICES, NetSpec

NANO = timm.list_models("roadmap_nano_*")
# Between them they have every kind of layer, and both published ends; the others are exhaustive.
USUAL = {
    *(f"roadmap_nano_{row}" for row in ("resnet", "kernel_7", "gelu", "layer_norm")),
    *("roadmap_nano_separate_downsampling", "roadmap_t_resnet50", "roadmap_t_patchify_stem"),
    *("roadmap_t_separate_downsampling", "roadmap_b_resnet200"),
}
# Of the multi-path networks a narrow one of each kind of block, in both forms; and its baselines.
NARROW: dict[str, dict[str, Any]] = {
    "multipath_small_pathatt": {"width": 4, "modules": 1, "depths": (1, 2, 2)},
    "multipath_large_paths_se": {
        "width": 4,
        "modules": 1,
        "depths": (0, 0, 1, 2),
        "implementation": "plain",
    },
    "multipath_basic": {"width": 8, "modules": 1},
}
BASELINES = ("multipath_resnet18", "multipath_se_resnet18")


def walk(names: Iterable[str], few: Collection[str] = USUAL) -> pytest.MarkDecorator:
    """A test for each name; `make test` has those of the few alone."""
    return pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=() if name in few else pytest.mark.exhaustive) for name in names],
    )


ROADMAP, MULTIPATH = timm.list_models("roadmap_*"), timm.list_models("multipath_*")
every_model = walk([*ROADMAP, *MULTIPATH], {*USUAL, *NARROW, *BASELINES})
every_own = walk(
    [name for name in (*ROADMAP, *MULTIPATH) if name not in BASELINES], {*USUAL, *NARROW}
)
every_small = walk([*NANO, *NARROW], {*USUAL, *NARROW})


def build(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def small(name: str, **kwargs: Any) -> Any:
    """A nano network, or a narrow one."""
    return build(name, **NARROW.get(name, {}), **kwargs)


def random_spec(generator: random.Random) -> NetSpec:
    """A network of any fields, small enough to be counted many times."""
    return NetSpec(
        depths=tuple(generator.randint(1, 3) for _ in range(4)),
        width=generator.randint(1, 12),
        kernel=generator.choice([1, 3, 5, 7, 9, 11]),
        expansion=generator.randint(1, 5),
        layer_scale=generator.choice([None, 1e-6]),
        **{name: generator.choice(values) for name, values in CHOICES.items()},
    )


@functools.cache
def outline(name: str) -> Any:
    """A network without values, which no test may change."""
    scale = {"layer_scale": 1e-6} if name in ROADMAP else {}
    return build(name, device="meta", drop_path_rate=0.1, **scale)


def images(*shape: int, device: str = "cpu") -> Tensor:
    generator = None if device == "meta" else torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, device=device)


def settled(name: str, **kwargs: Any) -> Any:
    """A small network in eval mode whose norms have statistics and weights of their own."""
    net = build(name, **{**NARROW.get(name, {}), **kwargs})
    with torch.no_grad():
        for key, weight in net.named_parameters():
            if "norm" in key:
                low, high = (-0.1, 0.1) if key.endswith("bias") else (0.5, 1.5)
                weight.copy_(torch.linspace(low, high, len(weight)))
        net.train()(images(8, 3, 32, 32))
    return net.eval()


def compare_a_step(plain: nn.Module, thrifty: Any) -> None:
    """One step of both: outputs, gradients and buffers are equal to the last bit."""
    thrifty.set_grad_checkpointing()
    x, outputs = images(4, 3, 32, 32), []
    before = {key: value.clone() for key, value in plain.named_buffers()}
    for net in (plain, thrifty):
        torch.manual_seed(2)  # the same branches are dropped
        outputs.append(net.train()(x))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for key, weight in plain.named_parameters():
        assert weight.grad is not None, key
        assert torch.equal(weight.grad, thrifty.get_parameter(key).grad), key
    for key, buffer in plain.named_buffers():
        assert torch.equal(buffer, thrifty.get_buffer(key)), key
        assert not torch.equal(buffer, before[key]), key
