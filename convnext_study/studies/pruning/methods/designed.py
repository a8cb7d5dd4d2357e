"""Architectures that are designed, not found by pruning the network itself.

Guided and transferred ones (Liu et al., ICLR 2019, section 5) have a pruned network's averages; the
paper shows figures only, so the rules are a reading of their descriptions, and rounding is ours.
Controls have widths that no method chose, at the same budget.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.cost import count
from convnext_study.data.rng import fold_in, generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning.channel_groups import Group, Kept, kept_of, narrowed
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.methods.magnitude import Masks
from convnext_study.studies.pruning.removal import ImageSize, remove, spec_of

CLOSE = 1e-4  # factors that differ by less give widths that do not
LEAST = 0.25  # of the widest layer's share, for a random one


def stage_shares(groups: Sequence[Group], kept: Kept) -> dict[int, float]:
    """The share of channels kept, averaged over the layers of each stage.

    A stage is what has maps of one size; -1 are the hidden layers of the classifier. Layers that
    ``kept`` does not name are whole.
    """
    shares: dict[int, list[float]] = {}
    for group in groups:
        left = len(kept[group.name]) if group.name in kept else group.width
        shares.setdefault(group.stage, []).append(left / group.width)
    return {stage: sum(values) / len(values) for stage, values in shares.items()}


def layer_shares(groups: Sequence[Group], shares: Mapping[int, float]) -> dict[str, float]:
    """The share of each layer of a network whose stages keep these.

    Of the network that the shares are of it is the guided architecture, of another, such as VGG-19
    for shares of VGG-16, the transferred one. Raises UserError for a stage that has no share.
    """
    for group in groups:
        if group.stage not in shares:
            raise UserError(f"stage {group.stage} of {group.name}: no share is known for it")
    return {group.name: shares[group.stage] for group in groups}


def random_shares(groups: Sequence[Group], seed: int) -> dict[str, float]:
    """A share of its own for every layer, drawn evenly from a quarter to one."""
    draw = generator(fold_in(seed, "random widths"))
    drawn = LEAST + (1 - LEAST) * torch.rand(len(groups), generator=draw, dtype=torch.float64)
    return {group.name: share for group, share in zip(groups, drawn.tolist(), strict=True)}


def widths_at(
    groups: Sequence[Group], shares: Mapping[str, float], factor: float = 1.0
) -> dict[str, int]:
    """The widths of layers that keep these shares times a factor; at least one channel of each, or
    one set of those that go together."""
    return {
        group.name: min(max(round(factor * shares[group.name] * group.count), 1), group.count)
        * (group.width // group.count)
        for group in groups
    }


def fit_widths(
    net: nn.Module,
    groups: Sequence[Group],
    shares: Mapping[str, float],
    macs: int,
    image_size: ImageSize,
) -> dict[str, int]:
    """Shares of layers, scaled by one factor to MACs nearest to ``macs``.

    Raises UserError for a budget that is more than the whole network's or less than one channel
    in each layer needs.
    """
    highest = 1 / min(shares.values(), default=1.0)
    steps = 2 ** max(math.ceil(math.log2(highest / CLOSE)), 0)

    def widths(step: int) -> dict[str, int]:
        return widths_at(groups, shares, highest * step / steps)

    @functools.cache
    def macs_of(chosen: tuple[int, ...]) -> int:
        return count_macs(net, dict(zip(shares, chosen, strict=True)), image_size, groups)

    def cost(step: int) -> int:
        return macs_of(tuple(widths(step).values()))

    if not groups or not cost(0) <= macs <= cost(steps):
        raise UserError(f"macs: {macs:,}; this network can have {cost(0):,} to {cost(steps):,}")
    above = bisect.bisect_right(range(steps), macs, lo=1, key=cost)
    return widths(min((above - 1, above), key=lambda step: abs(cost(step) - macs)))


def count_macs(
    net: nn.Module,
    widths: Mapping[str, int],
    image_size: ImageSize,
    groups: Sequence[Group] = (),
) -> int:
    """MACs of the network with these widths; ``net`` stays as it is. ``groups`` say which channels
    go together."""
    spec = spec_of(net)
    if spec is None:
        return count(remove(net, kept_of(widths, groups), image_size), image_size).macs
    with torch.device("meta"):
        classes = int(net.num_classes)  # type: ignore[arg-type]
        narrow = make_network(narrowed(spec, kept_of(widths)), num_classes=classes)
    return count(narrow, image_size).macs


def guided_sparsification(layers: Mapping[int, Sequence[str]], masks: Masks) -> dict[str, Tensor]:
    """One pattern for all 3x3 kernels of a stage: its most kept positions, as many as on average.

    ``layers`` are names of the convolutions of each stage, ``masks`` those on their weights. At
    least one position stays; other kernels keep their masks. Of equal positions the earlier stays.
    """
    found = dict(masks)
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
            found[name] = pattern.expand(masks[name].shape).clone()
    return found
