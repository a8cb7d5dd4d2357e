"""What timm's users expect of a network's features, checked for networks of several rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def check_features(narrow: Callable[..., Any], name: str, x: Tensor) -> list[Tensor]:
    """Features are the stages' outputs, whichever way they are asked for, and stay so.

    Args:
        narrow: builds a network by name and keywords, always with the same weights.
        name: of the model.
        x: images.

    Returns:
        The stages' outputs.
    """
    net = narrow(name)
    clean: list[Tensor] = []
    for stage in net.stages:
        stage.register_forward_hook(lambda *args: clean.append(args[-1].clone()))
    final, maps = net.forward_intermediates(x)
    assert len(maps) == len(clean)
    assert all(map(torch.equal, maps, clean))
    assert torch.equal(final, clean[-1])
    for kind in ("list", "dict", "hook", "fx", "getter"):
        found = narrow(name, features_only=True, feature_cls=kind)(x)
        found = list(found.values()) if kind == "dict" else found
        assert len(found) == len(clean), kind
        assert all(map(torch.equal, found, clean)), kind
    return clean
