"""Network slimming (Liu et al., ICCV 2017): the scales of BatchNorm decide which channels stay.

In training, `add_penalty_gradient` follows each backward pass; then `keep_channels` finds one
threshold for the whole network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.groups import Group, empty


def add_penalty_gradient(net: nn.Module, penalty: float) -> None:
    """Add the subgradient of ``penalty * sum |gamma|``, over all BatchNorms, to the gradients.

    It is ``penalty * sign(gamma)``, nothing at 0, on top of weight decay. Call it between the
    backward pass and the step.
    """
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                gamma = module.weight
                if gamma.grad is not None:
                    gamma.grad.add_(gamma.sign(), alpha=penalty)


def keep_channels(
    net: nn.Module, groups: Sequence[Group], ratio: float, *, keep_one: bool = False
) -> dict[str, list[int]]:
    """The channels whose ``|gamma|`` is strictly greater than one threshold.

    The threshold is the value at index ``int(total * ratio)`` of all of them in ascending order.
    Without equal values ``total - int(total * ratio) - 1`` channels stay. The pool are the groups
    that have a BatchNorm; of a channel with several, the first one's scale counts.

    Args:
        net: trained with the penalty.
        groups: its channels, as `apply.groups_of` finds them.
        ratio: share of all channels that goes, from 0 to below 1.
        keep_one: keep the channel with the largest scale of a layer that would lose all.

    Raises:
        PruningError: a layer that would be empty.
        UserError: a ratio out of range, or a network without such norms.
    """
    if not 0 <= ratio < 1:
        raise UserError(f"ratio: {ratio}; use a share from 0 to below 1")
    scales = {group.name: _scales(net, group) for group in groups if group.norms}
    if not scales:
        raise UserError("network slimming: no channels with a BatchNorm can go; use another method")
    pool = torch.cat(list(scales.values()))
    threshold = pool.sort().values[int(len(pool) * ratio)]
    kept = {}
    for name, values in scales.items():
        channels = (values > threshold).nonzero().flatten().tolist()
        if not channels and not keep_one:
            raise empty(name, len(values))
        kept[name] = channels or [int(values.argmax())]
    return kept


def _scales(net: nn.Module, group: Group) -> Tensor:
    gamma: Tensor = net.get_submodule(group.norms[0]).weight.detach().abs()  # type: ignore[operator]
    return gamma[list(group.positions)] if group.positions else gamma
