"""L1-norm filter pruning (Li et al., ICLR 2017): widths that are set by hand.

Of each layer the filters with the largest sums of absolute weights stay, over all input channels,
those of pruned filters before it included. Nothing makes up for what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from convnext_study.data.rng import fold_in, generator
from convnext_study.studies.pruning.channel_groups import Group, PruningError, check_widths

Choice = Literal["largest", "smallest", "random"]


def keep_filters(
    net: nn.Module,
    groups: Sequence[Group],
    widths: Mapping[str, int],
    *,
    choose: Choice = "largest",
    seed: int = 0,
) -> dict[str, list[int]]:
    """The filters that stay of each layer named in ``widths``, ascending.

    ``groups`` are as `apply.groups_of` finds them; all choices but ``largest`` are controls.
    Raises PruningError for a layer that has no filters of its own, or would be empty.
    """
    kept = {}
    for group, width in check_widths(widths, groups):
        if not group.producers:
            raise PruningError(f"{group.name}: selects channels, and has no filters of its own")
        norms = filter_norms(net.get_submodule(group.name), 1)
        # Those to keep first; of equal ones, the earlier.
        order = norms.sort(descending=choose == "largest", stable=True).indices
        if choose == "random":
            draw = generator(fold_in(seed, "filters", group.name))
            order = torch.randperm(len(norms), generator=draw)
        kept[group.name] = sorted(order[:width].tolist())
    return kept


def filter_norms(layer: nn.Module, p: int) -> Tensor:
    """The p-norm of each filter of a convolution or linear layer."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), p, dim=1)
    return norms
