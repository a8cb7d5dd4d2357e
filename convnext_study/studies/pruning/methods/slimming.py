"""Network slimming (Liu et al., ICCV 2017): the scales of BatchNorm decide which channels stay.

In training, `add_penalty_gradient` follows each backward pass; then `keep_channels` finds one
threshold for the whole network, by the ratio that the paper sets, or by a budget.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.channel_groups import Group
from convnext_study.studies.pruning.methods.designed import count_macs
from convnext_study.studies.pruning.removal import ImageSize


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


def keep_channels(net: nn.Module, groups: Sequence[Group], ratio: float) -> dict[str, list[int]]:
    """The channels whose ``|gamma|`` is strictly greater than one threshold.

    It is the value at index ``int(total * ratio)`` of all of them, ascending; of a layer
    that would lose all, the channel with the largest scale stays. The pool are the groups that have
    a BatchNorm; of several, the first one's scale counts, and of channels that go together the
    largest. Raises UserError for a ratio out of range
    or a network without such norms.
    """
    if not 0 <= ratio < 1:
        raise UserError(f"ratio: {ratio}; use a share from 0 to below 1")
    normed = [group for group in groups if group.norms]
    scales = {group.name: _scales(net, group) for group in normed}
    if not scales:
        raise UserError("network slimming: no channels with a BatchNorm can go; use another method")
    pool = torch.cat(list(scales.values()))
    threshold = pool.sort().values[int(len(pool) * ratio)]
    found = {}
    for group in normed:
        values = scales[group.name]
        units = (values > threshold).nonzero().flatten().tolist() or [int(values.argmax())]
        found[group.name] = group.channels_of(units)
    return found


def keep_budget(
    net: nn.Module, groups: Sequence[Group], macs: int, image_size: ImageSize
) -> dict[str, list[int]]:
    """The channels that stay where the MACs come nearest to ``macs``; at least one of a layer.

    Raises UserError where no ratio leaves as little.
    """
    total = sum(group.count for group in groups if group.norms)

    def keep(gone: int) -> dict[str, list[int]]:
        # Half a channel more, lest the product is rounded down to one less.
        return keep_channels(net, groups, (gone + 0.5) / total)

    def cost(gone: int) -> int:
        widths = {name: len(channels) for name, channels in keep(gone).items()}
        return count_macs(net, widths, image_size, groups)

    least = cost(total - 1)
    if least > macs:
        raise UserError(f"macs: {macs:,}; slimmed to one channel a layer it has {least:,}")
    gone = bisect.bisect_left(range(total - 1), True, key=lambda gone: cost(gone) <= macs)
    return keep(min((max(gone - 1, 0), gone), key=lambda gone: abs(cost(gone) - macs)))


def _scales(net: nn.Module, group: Group) -> Tensor:
    gamma: Tensor = net.get_submodule(group.norms[0]).weight.detach().abs()  # type: ignore[operator]
    if group.units:
        return gamma[torch.tensor(group.units)].amax(1)
    return gamma[list(group.positions)] if group.positions else gamma
