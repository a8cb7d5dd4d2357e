"""Network slimming to a budget: the ratio whose network comes nearest to it.

The paper sets ratios. To compare methods at equal cost the ratio is found instead, by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.apply import ImageSize
from convnext_study.studies.pruning.groups import Group
from convnext_study.studies.pruning.methods.controls import count_macs
from convnext_study.studies.pruning.methods.slimming import keep_channels


def slim(
    net: nn.Module, groups: Sequence[Group], macs: int, image_size: ImageSize
) -> dict[str, list[int]]:
    """The channels that stay where the MACs come nearest to ``macs``; at least one of a layer.

    Raises UserError where no ratio leaves as little.
    """
    total = sum(group.width for group in groups if group.norms)

    def keep(gone: int) -> dict[str, list[int]]:
        # Half a channel more, lest the product is rounded down to one less.
        return keep_channels(net, groups, (gone + 0.5) / total, keep_one=True)

    def cost(gone: int) -> int:
        widths = {name: len(channels) for name, channels in keep(gone).items()}
        return count_macs(net, widths, image_size)

    low, high = 0, total - 1
    if cost(high) > macs:
        raise UserError(f"macs: {macs:,}; slimmed to one channel a layer it has {cost(high):,}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) > macs else (low, middle)
    return keep(min((low, high), key=lambda gone: abs(cost(gone) - macs)))
