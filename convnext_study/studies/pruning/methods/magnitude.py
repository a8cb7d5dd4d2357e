"""Unstructured magnitude pruning (Han et al., NeurIPS 2015), as Liu et al. (2019) do it.

Weights of all convolutions are in one pool, and one threshold is taken over it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.masks import Masks, count_kept


def one_shot(net: nn.Module, ratio: float) -> dict[str, Tensor]:
    """Masks of the weights whose size is strictly greater than the threshold.

    It is the value at index ``int(total * ratio)`` of all sizes in ascending order: without equal
    values ``total - int(total * ratio) - 1`` weights stay.

    Raises:
        UserError: a ratio out of range, or a network without convolutions.
    """
    weights = conv_weights(net)
    total = sum(weight.numel() for weight in weights.values())
    return _above(weights, int(total * _check(ratio)))


def iterate(net: nn.Module, masks: Masks, ratio: float) -> dict[str, Tensor]:
    """The next round: this share of the weights that are left goes.

    The index is ``total - left + int(left * ratio)``; what went before is zero in ``net``.

    Raises UserError as `one_shot` does.
    """
    weights = {
        name: weight * masks[name] if name in masks else weight
        for name, weight in conv_weights(net).items()
    }
    total = sum(weight.numel() for weight in weights.values())
    unmasked = sum(weight.numel() for name, weight in weights.items() if name not in masks)
    left = count_kept(masks) + unmasked
    return _above(weights, total - left + int(left * _check(ratio)))


def conv_weights(net: nn.Module) -> dict[str, Tensor]:
    """The weights of all convolutions, by their parameters' names."""
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def _above(weights: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    if not weights:
        raise UserError("magnitude pruning: the network has no convolutions; use another network")
    pool = torch.cat([weight.abs().flatten() for weight in weights.values()])
    # The kth smallest, counted from 1: the value at that index in ascending order.
    threshold = pool.kthvalue(index + 1).values
    return {name: weight.abs() > threshold for name, weight in weights.items()}


def _check(ratio: float) -> float:
    if not 0 <= ratio < 1:
        raise UserError(f"ratio: {ratio}; use a share from 0 to below 1")
    return ratio
