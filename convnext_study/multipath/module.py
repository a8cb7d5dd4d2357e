"""The blocks of a multi-path network, and the stages they make up. Our reconstruction."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from convnext_study.layers import DropPath
from convnext_study.multipath.attention import make_attention
from convnext_study.multipath.paths import Paths, PathsPlan
from convnext_study.multipath.spec import MultipathSpec
from convnext_study.recompute import checkpointed


class Module(nn.Module):
    """relu(drop_path(branch(x)) + shortcut(x))

    Maps (N, c_in, H, W) to (N, C, H', W'), C = paths * width. The branch is
    fuse(attention(paths(x))), or without paths attention(convs(x)).

    Args:
        spec: of the network.
        plan: channels, stride and dilation here.
        form: of the paths, ``fused`` or ``plain``.
        drop_path_rate: of the branch.
    """

    def __init__(
        self, spec: MultipathSpec, plan: PathsPlan, form: str, drop_path_rate: float
    ) -> None:
        super().__init__()
        channels = plan.width * len(plan.depths)
        multipath = spec.block == "multipath"
        self.paths: nn.Module = Paths(plan, form) if multipath else basic(plan)
        self.attention = make_attention(spec.attention, len(plan.depths), channels)
        self.fuse: nn.Module = conv_norm(channels, channels) if multipath else nn.Identity()
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        same = plan.c_in == channels and plan.stride == 1
        self.shortcut: nn.Module = (
            nn.Identity() if same else conv_norm(plan.c_in, channels, stride=plan.stride)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fuse(self.attention(self.paths(x)))
        return self.act(self.drop_path(y) + self.shortcut(x))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Modules of one width."""

    def __init__(self, blocks: list[Module]) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return checkpointed(self.blocks, x)  # type: ignore[no-any-return]
        return self.blocks(x)  # type: ignore[no-any-return]


def basic(plan: PathsPlan) -> nn.Sequential:
    """3x3 convolutions in a row, with a BatchNorm each and a ReLU between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    c_in = plan.c_in
    for index in range(plan.depths[0]):
        if index > 0:
            layers[f"act{index}"] = nn.ReLU(inplace=True)
        layers[f"conv{index + 1}"] = nn.Conv2d(
            c_in,
            plan.width,
            3,
            plan.stride if index == 0 else 1,
            padding=plan.dilations[index > 0],
            dilation=plan.dilations[index > 0],
            bias=False,
        )
        layers[f"norm{index + 1}"] = nn.BatchNorm2d(plan.width)
        c_in = plan.width
    return nn.Sequential(layers)


def conv_norm(c_in: int, c_out: int, *, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its BatchNorm."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out)))
