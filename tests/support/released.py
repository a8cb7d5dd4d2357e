"""Networks as others release them: small ones of each layout, and random weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from timm.models.resnet import Bottleneck
from torch import nn

from convnext_study.models.pretrained.state_files import State
from convnext_study.roadmap import get_roadmap
from convnext_study.roadmap.spec import RESNET50, NetSpec

Factory = Callable[..., nn.Module]
DEPTHS = (1, 1, 2, 1)
CONVNEXT = get_roadmap("t").variants()[-1].spec.replace(layer_scale=1e-6)
_ENDING = CONVNEXT.replace(depths=DEPTHS, width=16)
_timms = partial(timm.models.ConvNeXt, depths=DEPTHS, dims=(16, 32, 64, 128))
_BLOCKS = [
    torchvision.models.convnext.CNBlockConfig(*one)
    for one in ((16, 32, 1), (32, 64, 1), (64, 128, 2), (128, None, 1))
]
SMALL: dict[str, tuple[NetSpec, Factory]] = {
    "resnet": (
        RESNET50.replace(depths=DEPTHS),
        partial(timm.models.ResNet, block=Bottleneck, layers=DEPTHS),
    ),
    "timm_convnext": (_ENDING, _timms),
    "timm_convnext of 1x1 convolutions": (_ENDING, partial(_timms, conv_mlp=True)),
    "timm_convnext without layer scale": (
        _ENDING.replace(layer_scale=None),
        partial(_timms, ls_init_value=None),
    ),
    "timm_convnext V2": (
        _ENDING.replace(layer_scale=None, grn=True),
        partial(_timms, ls_init_value=None, use_grn=True),
    ),
    "torchvision_convnext": (_ENDING, partial(torchvision.models.ConvNeXt, _BLOCKS)),
}
# The authors' names, from timm's.
_AUTHORS = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"\.blocks\.", "."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"mlp\.grn\.weight", "grn.gamma"),
    (r"mlp\.grn\.bias", "grn.beta"),
    (r"^head\.norm", "norm"),
    (r"^head\.fc", "head"),
)


def as_authors(state: State) -> State:
    """Weights of a ConvNeXt of timm as its authors save them: GRN's are (1, 1, 1, C)."""
    renamed: State = {}
    for key, tensor in state.items():
        for pattern, name in _AUTHORS:
            key = re.sub(pattern, name, key)
        renamed[key] = tensor.view(1, 1, 1, -1) if ".grn." in key else tensor
    return renamed


def random_state(make: Callable[[], Any]) -> State:
    """Random values for every tensor of a network: statistics, norms and layer scale too."""
    with torch.device("meta"):
        net = make()
    generator = torch.Generator().manual_seed(0)
    state: State = {}
    for key, tensor in net.state_dict().items():
        value = torch.randn(tensor.shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif key.endswith("running_var") or (key.endswith("weight") and tensor.ndim == 1):
            value = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.ndim > 1:
            value = value / math.sqrt(tensor[0].numel())
        elif not key.endswith("gamma"):
            value = 0.1 * value
        state[key] = value
    return state


def released(layout: str, num_classes: int = 10) -> State:
    """Random weights in a layout, as others would save them."""
    if layout == "official_convnext":
        return as_authors(released("timm_convnext", num_classes))
    return random_state(partial(SMALL[layout][1], num_classes=num_classes))
