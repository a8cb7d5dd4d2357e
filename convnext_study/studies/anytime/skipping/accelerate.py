"""From a trained network to a copy that skips: BatchNorms folded, and a skipper in every place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convnext_study.studies.anytime.backbones import FlexHead, StagedBackbone
from convnext_study.studies.anytime.masks import MaskedConv2d
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.skipping.heads import can_skip, skipping_head
from convnext_study.studies.anytime.skipping.indices import Geometry
from convnext_study.studies.anytime.skipping.methods import MethodSkipper


def accelerated(net: AnytimeNet, *, skip: bool = True) -> AnytimeNet:
    """A copy for inference: BatchNorms folded, channels last, and skipping what its masks skip.

    It gives the logits of the network in evaluation mode but for rounding, cannot be trained, and
    keeps the weights of now. A network without masks is folded only, and one that is not to
    ``skip``, which computes everything as the authors' code does. Methods are chosen by rules that
    were not measured here, until `latency.measure_table` gives it a table.
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    fold_batchnorms(fast)
    for module in fast.modules():
        if isinstance(module, nn.ReLU):  # it acts on a sum of its own in every backbone here
            module.inplace = True
    fast = fast.to(memory_format=torch.channels_last)
    if not skip:
        return fast
    for module in fast.modules():
        if isinstance(module, MaskedConv2d) and Geometry.of(module) is not None:
            module.skipper = MethodSkipper(module)
    if fast.spec.merge:
        heads = [exit for exit in fast.segments if can_skip(fast.heads[str(exit)])]
        fast.head_skippers = dict.fromkeys(heads, skipping_head)
    return fast


def fold_batchnorms(net: nn.Module) -> None:
    """Fold, in place, every BatchNorm that directly follows a convolution into its weights.

    In a masked convolution the factor goes into the weights, as the fill is linear, and the shift
    is added everywhere, to filled positions too.
    """
    for module in list(net.modules()):
        for conv_owner, conv_name, norm_owner, norm_name in _pairs(module):
            conv, norm = getattr(conv_owner, conv_name), getattr(norm_owner, norm_name)
            setattr(conv_owner, conv_name, _folded(conv, norm))
            setattr(norm_owner, norm_name, nn.Identity())


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Owner and name of a convolution, and of the BatchNorm after it.

    In sequences they are neighbours; in timm's blocks ``bn1`` follows ``conv1``; in a flex head
    they stand in two lists. Classes of their own, such as norms with an activation in them, are
    left as they are.
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
        plain = type(conv) in (nn.Conv2d, MaskedConv2d) and type(norm) is nn.BatchNorm2d
        if (sequence or named) and plain:
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
