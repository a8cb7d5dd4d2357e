"""L1-norm filter pruning (Li et al., ICLR 2017): widths that are set by hand.

Of each layer the filters with the largest sums of absolute weights stay, over all input channels,
those of pruned filters before it included. Nothing makes up for what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning.groups import Group, PruningError, check_widths

CHOICES = ("largest", "smallest", "random")


def keep_filters(
    net: nn.Module,
    groups: Sequence[Group],
    widths: Mapping[str, int],
    *,
    choose: str = "largest",
    seed: int = 0,
) -> dict[str, list[int]]:
    """The filters that stay of each layer named in ``widths``, ascending.

    Args:
        net: a trained network.
        groups: its channels, as `apply.groups_of` finds them.
        widths: how many filters of each layer stay: those of a published network
            (`wiring.widths_of`), or what ratios leave (`groups.widths_left`).
        choose: ``largest``; ``smallest`` and ``random`` are controls.
        seed: of random choices.

    Raises:
        PruningError: a layer that has no filters of its own, or would be empty.
        UserError: an unknown choice.
    """
    if choose not in CHOICES:
        raise UserError(f"choose: {choose!r}; use {', '.join(CHOICES)}")
    kept = {}
    for group, width in check_widths(widths, groups):
        if not group.producers:
            raise PruningError(f"{group.name}: selects channels, and has no filters of its own")
        scores = filter_norms(net.get_submodule(group.name), 1)
        order = _order(scores, choose, fold_in(seed, "filters", group.name))
        kept[group.name] = sorted(order[:width])
    return kept


def rule_ratios(
    groups: Sequence[Group], ratios: Sequence[float], skip: Sequence[int]
) -> dict[str, float]:
    """The ratios of a ResNet of basic blocks, as the paper gives them.

    Args:
        groups: those of the blocks' first convolutions, in order.
        ratios: one for each stage.
        skip: convolutions that stay whole, counted from 1 at the stem without shortcuts; the
            first ones of the blocks have even numbers.
    """
    first = min(group.stage for group in groups)
    return {
        group.name: ratios[group.stage - first]
        for number, group in enumerate(groups, start=1)
        if 2 * number not in skip and ratios[group.stage - first] > 0
    }


def filter_norms(layer: nn.Module, p: int) -> Tensor:
    """The p-norm of each filter of a convolution or linear layer."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), p, dim=1)
    return norms


def _order(scores: Tensor, choose: str, seed: int) -> list[int]:
    """The filters, those to keep first; of equal ones, the earlier."""
    if choose == "random":
        return torch.randperm(len(scores), generator=generator(seed)).tolist()
    largest_first = choose == "largest"
    return torch.sort(scores, descending=largest_first, stable=True).indices.tolist()
