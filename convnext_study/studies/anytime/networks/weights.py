"""Weights to start from: random ones, and those of a backbone that was trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from convnext_study.errors import UserError
from convnext_study.models.registry import checkpoint_filter_fn

INIT_STD = {"trunc_normal": 0.02, "normal": 0.001}  # the second is the authors'


def init_convs(part: nn.Module, scheme: str) -> None:
    """All convolutions of a module: ``kaiming`` (timm's HRNet), ``trunc_normal`` or ``normal``.

    Biases become 0. Raises KeyError for any other scheme.
    """
    for conv in part.modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        if scheme == "kaiming":
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        elif scheme == "trunc_normal":
            nn.init.trunc_normal_(conv.weight, std=INIT_STD[scheme])
        else:
            nn.init.normal_(conv.weight, std=INIT_STD[scheme])
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def load_backbone(backbone: nn.Module, checkpoint: Mapping[str, Tensor]) -> list[str]:
    """Weights of timm's HRNet, or of a segmentation HRNet of its authors, into ours.

    Masked convolutions take a plain one's weights and keep their lambda. Names may stand behind
    ``model.`` or ``backbone.``, and behind those of wrappers. Returns the names that were left
    behind: of heads, which differ.

    Raises UserError where a weight of the backbone is missing or has another shape.
    """
    found = checkpoint_filter_fn(dict(checkpoint), backbone)
    weights = {
        name.removeprefix("model.").removeprefix("backbone."): one for name, one in found.items()
    }
    own = backbone.state_dict()
    for name, weight in own.items():
        if name.endswith("fill_lambda"):
            weights.setdefault(name, weight)
        elif name not in weights:
            raise UserError(f"checkpoint: has no {name}; it is of another backbone")
        elif weights[name].shape != weight.shape:
            shapes = f"{tuple(weights[name].shape)} instead of {tuple(weight.shape)}"
            raise UserError(f"checkpoint: {name} is {shapes}; it is of another backbone")
    backbone.load_state_dict({name: weights[name] for name in own})
    return sorted(set(weights) - set(own))
