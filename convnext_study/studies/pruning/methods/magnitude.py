"""Pruning by size: filters by a score, weights by magnitude, soft filters; and masks.

Masks are True where a weight stays, and are kept in training; biases and norms have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning.channel_groups import Group, PruningError, check_widths

Masks = Mapping[str, Tensor]  # by the parameter's name, of its shape, bool
Choice = Literal["largest", "smallest", "random"]
# Scores of filters, (width,); filters with larger ones stay.
Score: TypeAlias = Callable[[nn.Module, Group], Tensor]


def l1_norm(net: nn.Module, group: Group) -> Tensor:
    """The sum of absolute weights (Li et al., ICLR 2017)."""
    return filter_norms(net.get_submodule(group.name), 1)


def filter_norms(layer: nn.Module, p: int) -> Tensor:
    """The p-norm of each filter of a convolution or linear layer."""
    norms: Tensor = torch.linalg.vector_norm(_filters(layer), p, dim=1)
    return norms


def geometric_median(net: nn.Module, group: Group) -> Tensor:
    """The sum of distances to the layer's other filters: those near the median are redundant (He et
    al., CVPR 2019)."""
    filters = _filters(net.get_submodule(group.name))
    return torch.cdist(filters, filters).sum(1)


def group_norm(net: nn.Module, group: Group) -> Tensor:
    """The L2-norm of the weights that are removed with the channel, those that read it included
    (Fang et al., CVPR 2023). Left out are gates, and readers that have groups, that also read other
    channels, or that follow a GLU or an attention."""
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
    """The change of the loss without the filter, to first order: the squared sum of weight times
    gradient. The network needs its gradients (Molchanov et al., CVPR 2019)."""
    weight = net.get_parameter(f"{group.name}.weight")
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return (weight.detach() * gradient).flatten(1).sum(1).square()


def lamp(weight: Tensor) -> Tensor:
    """Scores of single weights, of the weight's shape: the square over the sum of squares of the
    layer's weights that are not smaller (Lee et al., ICLR 2021)."""
    squares, order = weight.flatten().square().sort()
    scores = squares / squares.flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(weight.dtype).tiny)
    return torch.empty_like(scores).scatter_(0, order, scores).view_as(weight)


def _filters(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    return weight.reshape(len(weight), -1)


def keep_filters(
    net: nn.Module,
    groups: Sequence[Group],
    widths: Mapping[str, int],
    *,
    choose: Choice = "largest",
    seed: int = 0,
    score: Score = l1_norm,
) -> dict[str, list[int]]:
    """One-shot filter pruning: the filters to keep of each layer named in ``widths``.

    Filters with the largest scores stay, by default the L1-norm (Li et al., ICLR 2017) over all
    input channels, pruned ones included; nothing compensates for the loss. Choices other than
    ``largest`` are controls. ``groups`` are those of `removal.find_groups`. Raises PruningError for
    a layer that has no filters of its own, or would be empty.
    """
    kept = {}
    for group, width in check_widths(widths, groups):
        if not group.producers:
            raise PruningError(f"{group.name}: selects channels and has no filters to rank")
        scores = score(net, group)
        if group.units:
            scores = scores[torch.tensor(group.units)].sum(1)
        # Those to keep first; of equal ones the earlier.
        order = scores.sort(descending=choose == "largest", stable=True).indices
        if choose == "random":
            draw = generator(fold_in(seed, "filters", group.name))
            order = torch.randperm(len(scores), generator=draw)
        kept[group.name] = group.channels_of(order[: width // group.size].tolist())
    return kept


def magnitude_masks(
    net: nn.Module,
    ratio: float,
    *,
    again: bool = False,
    size: Callable[[Tensor], Tensor] = torch.abs,
) -> dict[str, Tensor]:
    """Unstructured magnitude pruning (Han et al., NeurIPS 2015), as Liu et al. (2019) do it.

    Weights of all convolutions are in one pool; those stay whose size is strictly greater than the
    value at index ``int(total * ratio)`` of all sizes, ascending. ``size`` returns the sizes of a
    layer's weights: absolute values, or `lamp`'s. With ``again``, a further round, the ratio is of
    the weights that are left; those pruned before are zero in ``net``. Raises UserError for a
    network without convolutions.
    """
    sizes = {name: size(weight) for name, weight in conv_weights(net).items()}
    if not sizes:
        raise UserError("magnitude pruning: the network has no convolutions; use another network")
    pool = torch.cat([values.flatten() for values in sizes.values()])
    left = int(pool.count_nonzero()) if again else len(pool)
    # The kth smallest, counted from 1: the value at that index in ascending order.
    threshold = pool.kthvalue(len(pool) - left + int(left * ratio) + 1).values
    return {name: values > threshold for name, values in sizes.items()}


def soft_filter_masks(net: nn.Module, ratio: float) -> dict[str, Tensor]:
    """Soft filter pruning (He et al., IJCAI 2018): masks without the smallest filters.

    Each convolution loses the ``int(width * ratio)`` filters of smallest L2 norm, of equal ones the
    earlier. In training these are set to zero after every epoch, and trained on.
    """
    masks = {}
    for name, weight in conv_weights(net).items():
        order = filter_norms(net.get_submodule(name.removesuffix(".weight")), 2).sort(stable=True)
        masks[name] = torch.ones_like(weight, dtype=torch.bool)
        masks[name][order.indices[: int(len(weight) * ratio)]] = False
    return masks


def conv_weights(net: nn.Module) -> dict[str, Tensor]:
    """The weights of all convolutions, by their parameters' names."""
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def apply_masks(net: nn.Module, masks: Masks) -> None:
    """Zero the masked weights, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            net.get_parameter(name).mul_(mask)


def mask_gradients(net: nn.Module, masks: Masks) -> None:
    """Zero the gradients of masked weights; call it between the backward pass and the step.

    Weight decay and momentum then leave the weights at zero.
    """
    with torch.no_grad():
        for name, mask in masks.items():
            gradient = net.get_parameter(name).grad
            if gradient is not None:
                gradient.mul_(mask)


def draw_masked(net: nn.Module, masks: Masks, generator: torch.Generator) -> None:
    """Draw new weights under the masks, in place, as in the authors' scratch arms.

    They are normal with standard deviation ``sqrt(2 / n)``, where n is the layer's number of kept
    weights over its input channels.
    """
    with torch.no_grad():
        for name, mask in masks.items():
            weight = net.get_parameter(name)
            kept = max(int(mask.sum()), 1)
            std = math.sqrt(2 * weight.shape[1] / kept)
            drawn = torch.randn(weight.shape, generator=generator) * std
            weight.copy_(drawn.to(weight)).mul_(mask)


def guided_sparsification(layers: Mapping[int, Sequence[str]], masks: Masks) -> dict[str, Tensor]:
    """One pattern for all 3x3 kernels of a stage: its most kept positions, as many as on average.

    ``layers`` are the names of each stage's convolutions, ``masks`` those on their weights. At
    least one position stays, of equal ones the earlier. Other kernels keep their masks.
    """
    guided = dict(masks)
    for names in layers.values():
        weights = [f"{name}.weight" for name in names]
        square = [name for name in weights if masks[name].shape[2:] == (3, 3)]
        if not square:
            continue
        kernels = torch.cat([masks[name].flatten(0, 1).double() for name in square])
        shares = kernels.mean(0).flatten()
        chosen = torch.zeros(9, dtype=torch.bool)
        order = shares.sort(descending=True, stable=True).indices
        chosen[order[: max(1, round(float(shares.sum())))]] = True
        for name in square:
            pattern = chosen.view(1, 1, 3, 3).to(masks[name].device)
            guided[name] = pattern.expand(masks[name].shape).clone()
    return guided
