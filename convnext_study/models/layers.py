"""The modules of `layer_specs.Layer`, including those that torch lacks, and the weight init.

It does not import timm, which takes seconds.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

from convnext_study.models.layer_specs import Layer
from convnext_study.roadmap.spec import NetSpec


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each position. Maps (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each position of (N, C, H, W) over its channels."""
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., 2021), stored 1-D so that it is not decayed."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.gamma = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale each channel of (N, C, H, W)."""
        return x * self.gamma.view(1, -1, 1, 1)


class GlobalResponseNorm(nn.Module):
    """GRN of ConvNeXt V2 (Woo et al., 2023): amplifies channels by their relative response.

    ``x + gamma * x * |x| / mean|x| + beta``, where ``|x|`` is a channel's L2 norm over the map and
    the mean is over channels. Starts as the identity. Stored 1-D so that it is not decayed; the
    authors' (1, 1, 1, C) weights are.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-6
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        response = x.norm(p=2, dim=(2, 3), keepdim=True)
        ratio: torch.Tensor = response / (response.mean(dim=1, keepdim=True) + self.eps)
        return x + self.gamma.view(1, -1, 1, 1) * (x * ratio) + self.beta.view(1, -1, 1, 1)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops a sample's branch, rescales those kept."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zero or scale each sample of (N, ...) in training; the identity in evaluation."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep)
        return x * mask / keep if keep > 0.0 else x * mask

    def extra_repr(self) -> str:
        """The rate, for ``print``."""
        return f"rate={self.rate:.3f}"


def make_layer(layer: Layer, spec: NetSpec) -> nn.Module:
    """The module of a `Layer`."""
    if layer.kind == "conv":
        reach = layer.dilation * (layer.kernel - 1)
        return nn.Conv2d(
            layer.c_in,
            layer.out,
            layer.kernel,
            layer.stride,
            # Patches do not overlap, so an even kernel is padded only if the size must stay.
            padding="same" if layer.same else (reach // 2 if layer.kernel % 2 else 0),
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.bias,
        )
    if layer.kind == "norm":
        return (LayerNorm2d if layer.variant == "layer" else nn.BatchNorm2d)(layer.out)
    if layer.kind == "act":
        return nn.GELU() if layer.variant == "gelu" else nn.ReLU(inplace=True)
    if layer.kind == "maxpool":
        return nn.MaxPool2d(layer.kernel, layer.stride, padding=layer.kernel // 2)
    if layer.kind == "grn":
        return GlobalResponseNorm(layer.out)
    if layer.kind == "scale":
        return LayerScale(layer.out, spec.layer_scale or 1.0)
    raise AssertionError(f"no module for a layer of kind {layer.kind}")


def sequence(layers: Iterable[Layer], spec: NetSpec) -> nn.Module:
    """Layers in sequence, under their names; the identity if there are none."""
    modules = OrderedDict((layer.name, make_layer(layer, spec)) for layer in layers)
    return nn.Sequential(modules) if modules else nn.Identity()


INIT_STD = 0.02  # Table 5 prints 0.2; the released code uses 0.02


def init_layers(net: nn.Module, scheme: str) -> None:
    """Initialise every convolution and linear layer of a network; biases start at 0.

    Args:
        net: any module.
        scheme: ``trunc_normal``, or ``kaiming`` by a convolution's fan-out (He et al., 2015), which
            is that of one path in a convolution of several paths with a ``width``; linear layers
            then keep torch's default init, as in torchvision.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear) and scheme == "kaiming":
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            if scheme == "kaiming":
                channels = getattr(module, "width", module.weight.shape[0])
                fan_out = channels * math.prod(module.weight.shape[2:])
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            else:
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
