"""Guided and transferred architectures (Liu et al., ICLR 2019, section 5): a pruned network's
averages, used to design others.

The paper shows figures only; the rules are a reading of their descriptions, and rounding is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from convnext_study.errors import UserError
from convnext_study.studies.pruning.groups import Group, Kept
from convnext_study.studies.pruning.masks import Masks


def stage_shares(groups: Sequence[Group], kept: Kept) -> dict[int, float]:
    """The share of channels kept, averaged over the layers of each stage.

    A stage is what has maps of one size; -1 are the hidden layers of the classifier. Layers that
    ``kept`` does not name are whole.
    """
    shares: dict[int, list[float]] = {}
    for group in groups:
        count = len(kept[group.name]) if group.name in kept else group.width
        shares.setdefault(group.stage, []).append(count / group.width)
    return {stage: sum(values) / len(values) for stage, values in shares.items()}


def design_widths(groups: Sequence[Group], shares: Mapping[int, float]) -> dict[str, int]:
    """Widths of a network whose stages keep these shares, at least one channel in each layer.

    With the groups of the network that the shares are of it is the guided architecture; with those
    of another, such as VGG-19 for shares of VGG-16, the transferred one.

    Raises UserError for a stage that has no share.
    """
    for group in groups:
        if group.stage not in shares:
            raise UserError(f"stage {group.stage} of {group.name}: no share is known for it")
    return {group.name: max(1, round(group.width * shares[group.stage])) for group in groups}


def kernel_patterns(layers: Mapping[int, Sequence[str]], masks: Masks) -> dict[int, Tensor]:
    """How often each position of a 3x3 kernel is kept, averaged over the kernels of a stage.

    Args:
        layers: names of the convolutions of each stage.
        masks: of an unstructured method, on their weights.

    Returns:
        Shares (3, 3) for each stage that has 3x3 kernels.
    """
    found = {}
    for stage, names in layers.items():
        kernels = [masks[f"{name}.weight"] for name in names]
        square = [mask.flatten(0, 1).double() for mask in kernels if mask.shape[2:] == (3, 3)]
        if square:
            found[stage] = torch.cat(square).mean(0)
    return found


def guided_sparsification(
    layers: Mapping[int, Sequence[str]], patterns: Mapping[int, Tensor], masks: Masks
) -> dict[str, Tensor]:
    """One pattern for all 3x3 kernels of a stage: its most kept positions, as many as on average.

    At least one position stays; other kernels keep their masks. Of equal positions the earlier
    stays.
    """
    found = dict(masks)
    for stage, names in layers.items():
        if stage not in patterns:
            continue
        shares = patterns[stage].flatten()
        count = max(1, round(float(shares.sum())))
        chosen = torch.zeros(9, dtype=torch.bool)
        chosen[shares.sort(descending=True, stable=True).indices[:count]] = True
        for name in names:
            mask = masks[f"{name}.weight"]
            if mask.shape[2:] == (3, 3):
                pattern = chosen.view(1, 1, 3, 3).to(mask.device)
                found[f"{name}.weight"] = pattern.expand(mask.shape).clone()
    return found
