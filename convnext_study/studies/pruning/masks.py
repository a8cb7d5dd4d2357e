"""Masks on weights: what unstructured pruning and lottery tickets make, and how they are held.

A mask is True where a weight stays. Biases and norms have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convnext_study.studies.pruning.groups import Kept

Masks = Mapping[str, Tensor]  # by the parameter's name, of its shape, bool


def apply_masks(net: nn.Module, masks: Masks) -> None:
    """Set the weights that go to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            net.get_parameter(name).mul_(mask)


def mask_gradients(net: nn.Module, masks: Masks) -> None:
    """Set their gradients to zero too: call it between the backward pass and the step.

    Weight decay and momentum then leave them at zero.
    """
    with torch.no_grad():
        for name, mask in masks.items():
            gradient = net.get_parameter(name).grad
            if gradient is not None:
                gradient.mul_(mask)


def draw_masked(net: nn.Module, masks: Masks, generator: torch.Generator) -> None:
    """New random weights under the masks, in place: the start of the authors' scratch arms.

    Normal, of standard deviation ``sqrt(2 / n)``, n the layer's kept weights over its input
    channels.
    """
    with torch.no_grad():
        for name, mask in masks.items():
            weight = net.get_parameter(name)
            kept = max(int(mask.sum()), 1)
            std = math.sqrt(2 * weight.shape[1] / kept)
            drawn = torch.randn(weight.shape, generator=generator) * std
            weight.copy_(drawn.to(weight)).mul_(mask)


def filter_masks(net: nn.Module, kept: Kept) -> dict[str, Tensor]:
    """Masks on whole filters, for layers whose kept filters a structured method names."""
    masks = {}
    for name, filters in kept.items():
        weight = net.get_parameter(f"{name}.weight")
        mask = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
        mask[list(filters)] = True
        masks[f"{name}.weight"] = mask
    return masks


def count_kept(masks: Masks) -> int:
    """Weights that stay, of those that have a mask."""
    return sum(int(mask.sum()) for mask in masks.values())
