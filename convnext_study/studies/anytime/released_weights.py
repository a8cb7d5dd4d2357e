"""The authors' released checkpoints: their names for the weights, and ours."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from convnext_study.studies.anytime.backbones import FlexHead

_HEAD = re.compile(r"(?:exit(?P<exit>\d)|last_layer)\.(?P<layer>\d+)(?P<rest>\..+)")
LAST = "4"  # the exit that they call the last layer
LAYERS_A_STEP = 4  # in their flex heads: resizing, convolution, BatchNorm, ReLU


def rename_released(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the weights of a checkpoint of the authors' the names of an `AnytimeNet`, in place.

    A hook before `load_state_dict`: other checkpoints are left as they are. The authors keep a
    network under ``model.``, beside its loss; each of their masked convolutions also keeps the
    fill's distances, which are constants.
    """
    if not any("last_layer." in name for name in state):
        return
    weights = dict(state)
    state.clear()
    for name, weight in weights.items():
        if not name.startswith("loss.") and not name.endswith("square_dis"):
            name = name.removeprefix("model.")
            if name.endswith(".Lambda"):
                name, weight = name.removesuffix("Lambda") + "fill_lambda", weight.reshape(1)
            state[prefix + _ours(net, name)] = weight


def _ours(net: nn.Module, name: str) -> str:
    if not (found := _HEAD.fullmatch(name)):
        return f"backbone.{name}"
    head = f"heads.{found['exit'] or LAST}"
    layer, rest = int(found["layer"]), found["rest"]
    if isinstance(net.get_submodule(head), FlexHead):
        step, place = divmod(layer, LAYERS_A_STEP)
        return f"{head}.{('', 'convs', 'norms')[place]}.{step}{rest}"
    return f"{head}.{layer}{rest}"
