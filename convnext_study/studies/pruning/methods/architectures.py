"""Architectures by a ratio or a budget: network slimming's, and designed ones.

Network slimming (Liu et al., ICCV 2017): the scales of BatchNorm decide which channels stay. In
training, `add_penalty_gradient` follows each backward pass; then one threshold for the whole
network follows from a ratio, as in the paper (`keep_channels`), or from a budget (`keep_budget`).

Guided and transferred architectures (Liu et al., ICLR 2019, section 5) have a pruned network's
averages; the paper only shows figures, so the rules are our reading of its descriptions, and
rounding is ours. Controls have widths that no method chose, at the same budget.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning.channel_groups import Group, Kept
from convnext_study.studies.pruning.costs import UntrainedNetwork

CLOSE = 1e-4  # resolution of the factor; closer ones give equal widths
LEAST = 0.25  # smallest random share


def add_penalty_gradient(net: nn.Module, penalty: float) -> None:
    """Add the subgradient of ``penalty * sum |gamma|``, over all BatchNorms, to the gradients.

    It is ``penalty * sign(gamma)``, 0 at 0, in addition to weight decay. Call it between the
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

    The threshold is the value at index ``int(total * ratio)`` of all of them, ascending; a layer
    that would lose all channels keeps the one with the largest scale. The pool are the groups that
    have a BatchNorm; of several norms the first one's scale counts, and of a unit's channels the
    largest. Raises UserError for a network without such norms.
    """
    normed = [group for group in groups if group.norms]
    scales = {group.name: _scales(net, group) for group in normed}
    if not scales:
        raise UserError(
            "network slimming: no prunable channels have a BatchNorm; use another method"
        )
    pool = torch.cat(list(scales.values()))
    threshold = pool.sort().values[int(len(pool) * ratio)]
    kept = {}
    for group in normed:
        values = scales[group.name]
        units = (values > threshold).nonzero().flatten().tolist() or [int(values.argmax())]
        kept[group.name] = group.channels_of(units)
    return kept


def keep_budget(
    net: nn.Module, groups: Sequence[Group], macs: int, whole: UntrainedNetwork
) -> dict[str, list[int]]:
    """The channels to keep so that the MACs are nearest to ``macs``; at least one in each layer.

    ``whole`` is the unpruned network. Raises UserError if no ratio leaves as few.
    """
    total = sum(group.count for group in groups if group.norms)

    def keep(gone: int) -> dict[str, list[int]]:
        # Half a channel more, so that rounding the product down does not lose one.
        return keep_channels(net, groups, (gone + 0.5) / total)

    def cost(gone: int) -> int:
        return whole.narrowed({name: len(left) for name, left in keep(gone).items()}).cost.macs

    least = cost(total - 1)
    if least > macs:
        raise UserError(f"macs: {macs:,}; slimmed to one channel per layer it has {least:,}")
    gone = bisect.bisect_left(range(total - 1), True, key=lambda gone: cost(gone) <= macs)
    return keep(min((max(gone - 1, 0), gone), key=lambda gone: abs(cost(gone) - macs)))


def _scales(net: nn.Module, group: Group) -> Tensor:
    gamma: Tensor = net.get_submodule(group.norms[0]).weight.detach().abs()  # type: ignore[operator]
    if group.units:
        return gamma[torch.tensor(group.units)].amax(1)
    return gamma[list(group.positions)] if group.positions else gamma


def shares_by_stage(
    groups: Sequence[Group], pruned: Sequence[Group], kept: Kept
) -> dict[str, float]:
    """The share of each layer: the mean share of the pruned network's layers in its stage.

    For the pruned network's own ``groups`` this is the guided architecture, for another network's,
    such as VGG-19's, the transferred one. A stage has maps of one size; -1 are the hidden layers of
    the classifier. Layers that ``kept`` does not name are whole. Raises UserError for a stage that
    the pruned network does not have.
    """
    shares: dict[int, list[float]] = {}
    for group in pruned:
        width = len(kept[group.name]) if group.name in kept else group.width
        shares.setdefault(group.stage, []).append(width / group.width)
    for group in groups:
        if group.stage not in shares:
            raise UserError(f"stage {group.stage} of {group.name}: its share is unknown")
    return {group.name: sum(shares[group.stage]) / len(shares[group.stage]) for group in groups}


def random_shares(groups: Sequence[Group], seed: int) -> dict[str, float]:
    """A random share for each layer, uniform from a quarter to one."""
    draw = generator(fold_in(seed, "random widths"))
    drawn = LEAST + (1 - LEAST) * torch.rand(len(groups), generator=draw, dtype=torch.float64)
    return {group.name: share for group, share in zip(groups, drawn.tolist(), strict=True)}


def widths_at(
    groups: Sequence[Group], shares: Mapping[str, float], factor: float = 1.0
) -> dict[str, int]:
    """The widths of layers that keep these shares times a factor, at least one unit each."""
    return {
        group.name: min(max(round(factor * shares[group.name] * group.count), 1), group.count)
        * group.size
        for group in groups
    }


def fit_widths(
    whole: UntrainedNetwork, groups: Sequence[Group], shares: Mapping[str, float], macs: int
) -> dict[str, int]:
    """The widths at these shares, scaled by one factor so that the MACs are nearest to ``macs``.

    Raises UserError for a budget above the unpruned network's or below that of one channel in each
    layer.
    """
    highest = 1 / min(shares.values(), default=1.0)
    steps = 2 ** max(math.ceil(math.log2(highest / CLOSE)), 0)

    def widths(step: int) -> dict[str, int]:
        return widths_at(groups, shares, highest * step / steps)

    def cost(step: int) -> int:
        return whole.narrowed(widths(step)).cost.macs

    if not groups or not cost(0) <= macs <= cost(steps):
        raise UserError(f"macs: {macs:,}; this network can have {cost(0):,} to {cost(steps):,}")
    above = bisect.bisect_right(range(steps), macs, lo=1, key=cost)
    return widths(min((above - 1, above), key=lambda step: abs(cost(step) - macs)))
