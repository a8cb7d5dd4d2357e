"""Initial weights of convolutions and linear layers."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

INIT_STD = 0.02  # Table 5 prints 0.2; the released code uses 0.02


def init_layers(net: nn.Module, scheme: str, kaiming: Callable[[nn.Conv2d], object]) -> None:
    """Start every convolution and linear layer of a network anew; biases start at 0.

    Args:
        net: any module.
        scheme: ``trunc_normal``, or ``kaiming``, which leaves torch's own start to linear layers.
        kaiming: fills a convolution's weight under that scheme.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear) and scheme == "kaiming":
            module.reset_parameters()  # torchvision leaves torch's default here
            continue
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if isinstance(module, nn.Conv2d) and scheme == "kaiming":
            kaiming(module)
        else:
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def he_normal(conv: nn.Conv2d, channels: int | None = None) -> None:
    """Normal, by the outputs that an input reaches (He et al., 2015): those of all filters, or of
    so many ``channels``."""
    fan_out = (channels or conv.out_channels) * math.prod(conv.kernel_size)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
