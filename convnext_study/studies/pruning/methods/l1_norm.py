"""L1-norm filter pruning (Li et al., ICLR 2017): ratios that are set by hand.

Of each layer the filters with the largest sums of absolute weights stay, over all input channels,
those of pruned filters before it included. Nothing makes up for what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.errors import UserError
from convnext_study.studies.pruning.groups import Group, PruningError, empty

CHOICES = ("largest", "smallest", "random")


def keep_filters(
    net: nn.Module,
    groups: Sequence[Group],
    ratios: Mapping[str, float],
    *,
    choose: str = "largest",
    seed: int = 0,
    keep_one: bool = False,
) -> dict[str, list[int]]:
    """Of each layer named in ``ratios``, the ``int(width * (1 - ratio))`` filters that stay.

    Args:
        net: a trained network.
        groups: its channels, as `apply.groups_of` finds them.
        ratios: of each layer, the share of filters that goes.
        choose: ``largest``; ``smallest`` and ``random`` are controls.
        seed: of random choices.
        keep_one: keep one filter of a layer that would lose all.

    Raises:
        PruningError: a layer without filters of its own, or one that would be empty.
        UserError: an unknown choice.
    """
    if choose not in CHOICES:
        raise UserError(f"choose: {choose!r}; use {', '.join(CHOICES)}")
    with_filters = {group.name: group for group in groups if group.producers}
    kept = {}
    for name, ratio in ratios.items():
        if name not in with_filters:
            raise PruningError(f"{name}: has no filters of its own that could go")
        width = with_filters[name].width
        count = int(width * (1 - check_ratio(ratio))) or int(keep_one)
        if count == 0:
            raise empty(name, width)
        scores = filter_norms(net.get_submodule(name), 1)
        kept[name] = sorted(_order(scores, choose, fold_in(seed, "filters", name))[:count])
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


def check_ratio(ratio: float) -> float:
    """The ratio. Raises UserError unless it lies between 0 and 1."""
    if not 0 <= ratio <= 1:
        raise UserError(f"ratio: {ratio}; use a share between 0 and 1")
    return ratio


def _order(scores: Tensor, choose: str, seed: int) -> list[int]:
    """The filters, those to keep first; of equal ones, the earlier."""
    if choose == "random":
        return torch.randperm(len(scores), generator=generator(seed)).tolist()
    largest_first = choose == "largest"
    return torch.sort(scores, descending=largest_first, stable=True).indices.tolist()
