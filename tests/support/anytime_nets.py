"""Small anytime networks for tests."""

from __future__ import annotations

from typing import Any

import torch

from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.spec import AnytimeSpec


def anytime_net(classes: int = 5, **fields: Any) -> AnytimeNet:
    """A seeded network in evaluation mode whose norms have statistics of their own."""
    torch.manual_seed(0)
    net = AnytimeNet(AnytimeSpec.from_dict(fields), num_classes=classes)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            torch.nn.init.uniform_(module.get_buffer("running_mean"), -0.5, 0.5)
    return net.eval()


def images(size: tuple[int, int] = (64, 64), count: int = 2, **how: Any) -> torch.Tensor:
    """Smooth random images (count, 3, height, width), so that confidence varies."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, size[0] // 8, size[1] // 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").to(**how)
