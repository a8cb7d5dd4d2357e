"""Networks for the tests of the contract with timm."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

import convnext_study  # noqa: F401  registers the models

NANO = timm.list_models("roadmap_nano_*")
every_model = pytest.mark.parametrize("name", timm.list_models("roadmap_*"))
every_nano = pytest.mark.parametrize("name", NANO)


def build(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


@functools.cache
def outline(name: str) -> Any:
    """A network without values, which no test may change."""
    return build(name, device="meta", layer_scale=1e-6, drop_path_rate=0.1)


def images(*shape: int, device: str = "cpu") -> Tensor:
    generator = None if device == "meta" else torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, device=device)


def settled(name: str, **kwargs: Any) -> Any:
    """A nano network in eval mode whose norms have statistics and weights of their own."""
    net = build(name, **kwargs)
    with torch.no_grad():
        for key, weight in net.named_parameters():
            if "norm" in key:
                low, high = (-0.1, 0.1) if key.endswith("bias") else (0.5, 1.5)
                weight.copy_(torch.linspace(low, high, len(weight)))
        net.train()(images(8, 3, 32, 32))
    return net.eval()
