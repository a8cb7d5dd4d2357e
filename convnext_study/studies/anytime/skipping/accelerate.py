"""Copies of trained networks that skip: with BatchNorms folded, and a skipper per convolution."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convnext_study.studies.anytime.backbones import FlexHead, HRNet, StagedBackbone
from convnext_study.studies.anytime.masks import MaskedConv2d
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.skipping import compiled
from convnext_study.studies.anytime.skipping.skipper import (
    FusedBlock,
    KernelConv2d,
    Packed,
    Skipper,
    has_kernel,
    skipping_head,
)


def accelerated(net: AnytimeNet, *, skip: bool = True) -> AnytimeNet:
    """A copy for inference: BatchNorms folded, channels last, and skipping what its masks skip.

    Up to rounding it returns the network's logits in evaluation mode; it cannot be trained, and
    does not follow later changes of the weights. On the CPU its convolutions are the compiled
    kernels, if there is a compiler. Without ``skip`` it uses torch's and computes everything, as
    the authors' code does.
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    fold_batchnorms(fast)
    for module in fast.modules():
        if isinstance(module, nn.ReLU):  # nothing else reads its input in any backbone here
            module.inplace = True
    fast = fast.to(memory_format=torch.channels_last)
    if not skip:
        return fast
    if next(fast.parameters()).device.type == "cpu":
        compiled.library()  # built now rather than during the first prediction
    for module in fast.modules():
        if isinstance(module, MaskedConv2d) and has_kernel(module):
            module.skipper = Skipper(module)
        elif type(module) is nn.Conv2d and has_kernel(module):
            module.__class__ = KernelConv2d
            module.add_module("pack", Packed(module, module.bias))
    if isinstance(fast.backbone, HRNet):
        _fuse(fast.backbone)
    if fast.spec.merge:
        fast.head_skipper = skipping_head
    return fast


def _fuse(backbone: HRNet) -> None:
    """Fuse ReLUs and sums into the convolutions before them, in the stem and in all blocks."""
    for name, act in (("conv1", "act1"), ("conv2", "act2")):
        conv = backbone.get_submodule(name)
        assert isinstance(conv, KernelConv2d)  # noqa: S101  as are all square convolutions
        conv.relu = True
        setattr(backbone, act, nn.Identity())
    for module in backbone.modules():
        if type(module) in (BasicBlock, Bottleneck):
            module.__class__ = FusedBlock


def fold_batchnorms(net: nn.Module) -> None:
    """Fold, in place, every BatchNorm that directly follows a convolution into its weights.

    In a masked convolution the factor is folded into the weights, as the fill is linear, and the
    shift is added everywhere, to filled positions too.
    """
    for module in list(net.modules()):
        for conv_owner, conv_name, norm_owner, norm_name in _foldable_pairs(module):
            conv, norm = getattr(conv_owner, conv_name), getattr(norm_owner, norm_name)
            setattr(conv_owner, conv_name, _folded(conv, norm))
            setattr(norm_owner, norm_name, nn.Identity())


def _foldable_pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Owner and name of each convolution and of the BatchNorm that follows it.

    In sequences they are neighbours; in timm's blocks ``bn1`` follows ``conv1``; in a flex head
    they are in two lists. Subclasses, such as norms with an activation, are left as they are.
    """
    if isinstance(module, FlexHead):
        for index in range(len(module.norms)):
            yield module.convs, str(index), module.norms, str(index)
        return
    if isinstance(module, StagedBackbone):  # timm's wrapper runs its layers in order
        module, sequence = module.net, True
    else:
        sequence = isinstance(module, nn.Sequential)
    children = list(module.named_children())
    for (first, conv), (second, norm) in pairwise(children):
        adjacent = first.startswith("conv") and second == first.replace("conv", "bn")
        foldable = type(conv) in (nn.Conv2d, MaskedConv2d) and type(norm) is nn.BatchNorm2d
        if (sequence or adjacent) and foldable:
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
