"""Soft filter pruning (He et al., IJCAI 2018): filters set to zero after every epoch.

They are still trained, and a last pass after the last epoch fixes the zeros. Nothing is removed:
the pattern is a mask, and the scratch arms train new weights under it.
"""

from __future__ import annotations

from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.masks import apply_masks, filter_masks
from convnext_study.studies.pruning.methods.l1_norm import filter_norms


def smallest_filters(net: nn.Module, ratio: float) -> dict[str, list[int]]:
    """Of every convolution the ``int(width * ratio)`` filters of smallest L2 norm, ascending.

    Of equal ones, the earlier. Raises UserError for a ratio out of range.
    """
    if not 0 <= ratio <= 1:
        raise UserError(f"ratio: {ratio}; use a share between 0 and 1")
    found = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            order = filter_norms(module, 2).sort(stable=True).indices.tolist()
            found[name] = sorted(order[: int(module.out_channels * ratio)])
    return found


def zero_filters(net: nn.Module, ratio: float) -> dict[str, list[int]]:
    """Set them to zero, in place, and say which: call it after every epoch."""
    zeroed = smallest_filters(net, ratio)
    apply_masks(net, pattern_masks(net, zeroed))
    return zeroed


def pattern_masks(net: nn.Module, zeroed: dict[str, list[int]]) -> dict[str, Tensor]:
    """The masks of a pattern: what the scratch arms train under."""
    kept = {
        name: [at for at in range(net.get_parameter(f"{name}.weight").shape[0]) if at not in gone]
        for name, gone in zeroed.items()
    }
    return filter_masks(net, kept)
