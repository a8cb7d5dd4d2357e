"""Random weights to start from."""

from __future__ import annotations

from torch import nn

INIT_STD = {"trunc_normal": 0.02, "normal": 0.001}  # the second is the authors'


def init_convs(part: nn.Module, scheme: str) -> None:
    """All convolutions of a module: ``kaiming`` (timm's HRNet), ``trunc_normal`` or ``normal``.

    Biases become 0. Raises KeyError for any other scheme.
    """
    for conv in part.modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        if scheme == "kaiming":
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        elif scheme == "trunc_normal":
            nn.init.trunc_normal_(conv.weight, std=INIT_STD[scheme])
        else:
            nn.init.normal_(conv.weight, std=INIT_STD[scheme])
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
