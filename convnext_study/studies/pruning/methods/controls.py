"""Controls: widths that no method chose, uniform or random, at the same budget.

Each is found by bisection on one factor, so that the MACs come as near to the budget as whole
channels allow.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from convnext_study.cost import count
from convnext_study.data.rng import fold_in, generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning.apply import ImageSize, remove, spec_of
from convnext_study.studies.pruning.groups import Group
from convnext_study.studies.pruning.networks.build import make_network
from convnext_study.studies.pruning.networks.wiring import with_widths

CLOSE = 1e-4  # factors that differ by less give widths that do not
LEAST = 0.25  # of the widest layer's share, for a random one


def uniform_widths(
    net: nn.Module, groups: Sequence[Group], macs: int, image_size: ImageSize
) -> dict[str, int]:
    """The same share of every layer, at least one channel, with MACs nearest to ``macs``.

    Raises UserError for a budget that is more than the whole network's or less than one channel
    in each layer needs.
    """
    shares = {group.name: 1.0 for group in groups}
    return fit_widths(net, groups, shares, macs, image_size)


def random_widths(
    net: nn.Module, groups: Sequence[Group], macs: int, image_size: ImageSize, seed: int
) -> dict[str, int]:
    """A share of its own for every layer, drawn evenly from a quarter to one, scaled to ``macs``.

    Raises UserError as `uniform_widths` does.
    """
    draw = generator(fold_in(seed, "random widths"))
    drawn = LEAST + (1 - LEAST) * torch.rand(len(groups), generator=draw, dtype=torch.float64)
    shares = {group.name: share for group, share in zip(groups, drawn.tolist(), strict=True)}
    return fit_widths(net, groups, shares, macs, image_size)


def kept_of(widths: Mapping[str, int]) -> dict[str, list[int]]:
    """The first channels of each layer: for an architecture, any others would do."""
    return {name: list(range(width)) for name, width in widths.items()}


def count_macs(net: nn.Module, widths: Mapping[str, int], image_size: ImageSize) -> int:
    """MACs of the network with these widths; ``net`` stays as it is."""
    spec = spec_of(net)
    if spec is None:
        return count(remove(net, kept_of(widths), image_size), image_size).macs
    with torch.device("meta"):
        classes = int(net.num_classes)  # type: ignore[arg-type]
        narrow = make_network(with_widths(spec, widths), num_classes=classes)
    return count(narrow, image_size).macs


def fit_widths(
    net: nn.Module,
    groups: Sequence[Group],
    shares: Mapping[str, float],
    macs: int,
    image_size: ImageSize,
) -> dict[str, int]:
    """Shares of layers, scaled by one factor to MACs nearest to ``macs``.

    Raises UserError as `uniform_widths` does.
    """

    def widths(factor: float) -> tuple[int, ...]:
        return tuple(
            min(max(round(factor * shares[group.name] * group.width), 1), group.width)
            for group in groups
        )

    @functools.cache
    def cost(at: tuple[int, ...]) -> int:
        return count_macs(net, dict(zip(shares, at, strict=True)), image_size)

    low, high = 0.0, 1 / min(shares.values(), default=1.0)
    least, most = cost(widths(low)), cost(widths(high))
    if not groups or not least <= macs <= most:
        raise UserError(f"macs: {macs:,}; this network can have {least:,} to {most:,}")
    while widths(low) != widths(high) and high - low > CLOSE:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(widths(middle)) <= macs else (low, middle)
    nearest = min((widths(low), widths(high)), key=lambda at: abs(cost(at) - macs))
    return dict(zip(shares, nearest, strict=True))
