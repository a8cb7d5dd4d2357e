"""By what filters are ranked: larger scores stay. Each gives one number for each filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from convnext_study.studies.pruning.channel_groups import Group

Score: TypeAlias = Callable[[nn.Module, Group], Tensor]  # (width,)


def l1_norm(net: nn.Module, group: Group) -> Tensor:
    """The sum of absolute weights (Li et al., ICLR 2017)."""
    return filter_norms(net.get_submodule(group.name), 1)


def filter_norms(layer: nn.Module, p: int) -> Tensor:
    """The p-norm of each filter of a convolution or linear layer."""
    norms: Tensor = torch.linalg.vector_norm(_filters(layer), p, dim=1)
    return norms


def geometric_median(net: nn.Module, group: Group) -> Tensor:
    """The sum of distances to the layer's other filters: what is near the median can be made of the
    others (He et al., CVPR 2019)."""
    filters = _filters(net.get_submodule(group.name))
    return torch.cdist(filters, filters).sum(1)


def group_norm(net: nn.Module, group: Group) -> Tensor:
    """The L2-norm of the weights that go with the channel, those that read it among them (Fang et
    al., CVPR 2023). Left out are gates, layers that read them in groups or among other channels,
    and those that read what a GLU or an attention makes of them."""
    total = torch.zeros(group.width)
    for name in (*group.producers, *group.norms):
        layer = net.get_submodule(name)
        total += _filters(layer).square().sum(1)
        if isinstance(layer.bias, Tensor):
            total += layer.bias.detach().square()
    for name, repeat in group.consumers:
        weight = net.get_parameter(f"{name}.weight").detach()
        if weight.shape[1] == group.width * repeat:
            total += weight.transpose(0, 1).reshape(group.width, -1).square().sum(1)
    return total.sqrt()


def taylor(net: nn.Module, group: Group) -> Tensor:
    """How much the loss changes without the filter, to first order: the square of the sum of weight
    times gradient, which the network has to have (Molchanov et al., CVPR 2019)."""
    weight = net.get_parameter(f"{group.name}.weight")
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return (weight.detach() * gradient).flatten(1).sum(1).square()


def lamp(weight: Tensor) -> Tensor:
    """Of single weights: the square over the sum of squares of the layer's weights that are not
    smaller, of the weight's shape (Lee et al., ICLR 2021)."""
    squares, order = weight.flatten().square().sort()
    scores = squares / squares.flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(weight.dtype).tiny)
    return torch.empty_like(scores).scatter_(0, order, scores).view_as(weight)


def _filters(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    return weight.reshape(len(weight), -1)
