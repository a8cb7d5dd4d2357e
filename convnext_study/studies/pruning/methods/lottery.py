"""Lottery tickets (Frankle and Carbin, ICLR 2019), as Liu et al. (2019) examine them.

A pattern is what a pruned network keeps: masks of `methods.magnitude`, one shot or iterative, or
whole filters (`masks.filter_masks` of `methods.l1_norm`). The winning ticket is the pattern on the
weights that training started from, the control the same pattern on others.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.studies.pruning.masks import Masks, apply_masks

State = Mapping[str, Tensor]


def store(net: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers, to rewind to later."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def rewind(net: nn.Module, initial: State, masks: Masks) -> None:
    """Make the network a ticket, in place: ``initial`` weights, buffers too, under the masks.

    With the stored start it is the winning ticket, with another start (`store` of a network that
    was built with another seed) the control. Raises UserError where they do not fit.
    """
    try:
        net.load_state_dict(dict(initial))
    except RuntimeError as error:
        raise UserError(
            f"the stored weights do not fit: {str(error).splitlines()[-1].strip()}"
        ) from error
    apply_masks(net, masks)
