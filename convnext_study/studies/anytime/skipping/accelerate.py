"""From a trained network to a copy that skips."""

from __future__ import annotations

import copy

import torch
from torch import nn

from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.skipping.branches import use_rows
from convnext_study.studies.anytime.skipping.choice import Skipper, Table
from convnext_study.studies.anytime.skipping.fold import fold_batchnorms
from convnext_study.studies.anytime.skipping.heads import can_skip, skipping_head


def accelerated(net: AnytimeNet, table: Table | str | None = None) -> AnytimeNet:
    """A copy for inference: BatchNorms folded, channels last, and skipping what its masks skip.

    It gives the logits of the network in evaluation mode but for rounding, cannot be trained, and
    keeps the weights of now. A network without masks is folded only.

    Args:
        net: any anytime network.
        table: by which methods are chosen (`measure.measure_table`); None for rules that were not
            measured here; a name of `methods.METHODS` for that one everywhere; ``dense`` to compute
            everything as the authors' code does.
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    fold_batchnorms(fast)
    for module in fast.modules():
        if isinstance(
            module, nn.ReLU
        ):  # what it acts on is a sum of its own in every backbone here
            module.inplace = True
    fast = fast.to(memory_format=torch.channels_last)
    if table == "dense":
        return fast
    for module in fast.modules():
        if isinstance(module, MaskedConv2d):
            module.skipper = Skipper(module, Table() if table is None else table)
    use_rows(fast, Table() if table is None else table)
    if fast.spec.merge:
        heads = [exit for exit in fast.segments if can_skip(fast.heads[str(exit)])]
        fast.head_skippers = dict.fromkeys(heads, skipping_head)
    return fast
