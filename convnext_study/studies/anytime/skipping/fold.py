"""Fold BatchNorm into the convolutions before it, for inference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.networks.heads import FlexHead
from convnext_study.studies.anytime.networks.staged import StagedBackbone


def fold_batchnorms(net: nn.Module) -> int:
    """Fold, in place, every BatchNorm that directly follows a convolution; returns how many.

    In a masked convolution the factor goes into the weights, as the fill is linear, and the shift
    is added everywhere, to filled positions too.
    """
    found = 0
    for module in list(net.modules()):
        for conv_owner, conv_name, norm_owner, norm_name in _pairs(module):
            conv, norm = getattr(conv_owner, conv_name), getattr(norm_owner, norm_name)
            setattr(conv_owner, conv_name, _folded(conv, norm))
            setattr(norm_owner, norm_name, nn.Identity())
            found += 1
    return found


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Owner and name of a convolution, and of the BatchNorm after it.

    In sequences they are neighbours; in timm's blocks ``bn1`` follows ``conv1``; in a flex head
    they stand in two lists.
    """
    if isinstance(module, FlexHead):
        for index in range(len(module.norms)):
            yield module.convs, str(index), module.norms, str(index)
        return
    if isinstance(module, StagedBackbone):  # timm's wrapper runs its layers in their order
        module, sequence = module.net, True
    else:
        sequence = isinstance(module, nn.Sequential)
    children = list(module.named_children())
    for (first, conv), (second, norm) in pairwise(children):
        named = first.startswith("conv") and second == first.replace("conv", "bn")
        if (sequence or named) and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            yield module, first, module, second


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    if not isinstance(conv, MaskedConv2d):
        return fuse_conv_bn_eval(conv, norm)
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101
    with torch.no_grad():
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        conv.shift = norm.bias - norm.running_mean * factor
        conv.weight.mul_(factor.view(-1, 1, 1, 1))
        if conv.bias is not None:
            conv.bias.mul_(factor)
    return conv
