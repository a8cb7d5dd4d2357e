"""The network a multi-path spec describes. Our reconstruction: the paper's layer table is unknown.

It keeps the contract that users of timm expect of a model (`registry.py` lists its models).
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.models.blocks import Head, Stage, drop_path_rates, jit_ignore
from convnext_study.models.layer_specs import Layer
from convnext_study.models.layers import DropPath, he_normal, init_layers
from convnext_study.models.timm_model import TimmModel, stage_info
from convnext_study.roadmap.spec import NetSpec
from convnext_study.studies.multipath.paths import (
    IMPLEMENTATIONS,
    PathConv2d,
    Paths,
    PathsSpec,
    default_implementation,
)
from convnext_study.studies.multipath.spec import SE_REDUCTION, STAGES, MultipathSpec

OUTPUT_STRIDES = (1, 2, 4, 8, 16, 32)


class PathAttention(nn.Module):
    """One weight a path, from the global means of all paths (our reconstruction).

    The paths lie one after the other in the channels, so that weighing them after they are
    concatenated is the same as before.
    """

    def __init__(self, paths: int) -> None:
        super().__init__()
        self.paths = paths
        self.fc1 = nn.Linear(paths, paths)
        self.fc2 = nn.Linear(paths, paths)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each path of (N, paths * width, H, W)."""
        means = x.mean((2, 3)).reshape(x.shape[0], self.paths, -1)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(means.mean(2)))))
        return x * weights.unsqueeze(2).expand_as(means).flatten(1)[:, :, None, None]


class SqueezeExcite(nn.Module):
    """One weight a channel (Hu et al., 2018), by linear layers with bias, 16 to 1 in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SE_REDUCTION)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of (N, C, H, W)."""
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


def make_attention(kind: str, paths: int, channels: int) -> nn.Module:
    """``none``, ``path`` or ``se``, as in the spec."""
    if kind == "path":
        return PathAttention(paths)
    return SqueezeExcite(channels) if kind == "se" else nn.Identity()


class MultiPathBlock(nn.Module):
    """relu(drop_path(branch(x)) + shortcut(x))

    Maps (N, c_in, H, W) to (N, C, H', W'), C = paths * width. The branch is
    fuse(attention(paths(x))), or without paths attention(convs(x)).

    Args:
        spec: of the network.
        paths_spec: channels, stride and dilation here.
        implementation: of the paths, ``fused`` or ``plain``.
        drop_path_rate: of the branch.
    """

    def __init__(
        self, spec: MultipathSpec, paths_spec: PathsSpec, implementation: str, drop_path_rate: float
    ) -> None:
        super().__init__()
        channels = paths_spec.width * len(paths_spec.depths)
        multipath = spec.block == "multipath"
        self.paths: nn.Module = (
            Paths(paths_spec, implementation) if multipath else basic(paths_spec)
        )
        self.attention = make_attention(spec.attention, len(paths_spec.depths), channels)
        self.fuse: nn.Module = conv_norm(channels, channels) if multipath else nn.Identity()
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        same = paths_spec.c_in == channels and paths_spec.stride == 1
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else conv_norm(paths_spec.c_in, channels, stride=paths_spec.stride)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, paths * width, H', W')."""
        y = self.fuse(self.attention(self.paths(x)))
        return self.act(self.drop_path(y) + self.shortcut(x))  # type: ignore[no-any-return]


def basic(paths_spec: PathsSpec) -> nn.Sequential:
    """3x3 convolutions in a row, with a BatchNorm each and a ReLU between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    c_in = paths_spec.c_in
    for index in range(paths_spec.depths[0]):
        if index > 0:
            layers[f"act{index}"] = nn.ReLU(inplace=True)
        layers[f"conv{index + 1}"] = nn.Conv2d(
            c_in,
            paths_spec.width,
            3,
            paths_spec.stride if index == 0 else 1,
            padding=paths_spec.dilations[index > 0],
            dilation=paths_spec.dilations[index > 0],
            bias=False,
        )
        layers[f"norm{index + 1}"] = nn.BatchNorm2d(paths_spec.width)
        c_in = paths_spec.width
    return nn.Sequential(layers)


def conv_norm(c_in: int, c_out: int, *, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its BatchNorm."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(c_out)))


class MultipathNet(TimmModel):
    """A 3x3 stem, three stages of modules, global pooling and a classifier.

    Maps images (N, in_chans, H, W) to logits (N, num_classes). Stages 2 and 3 halve the map.

    Args:
        spec: what to build.
        num_classes: 0 leaves the classifier out; the network then returns pooled features.
        in_chans: channels of the image.
        global_pool: avg, max, avgmax, or '' for a map of logits, one of them at each position.
        output_stride: 4 or more for the network as it is; 2 and 1 turn the last strides into
            dilation.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last module, growing linearly from 0 at the first.
        implementation: how the paths are computed, which changes nothing but speed: ``fused`` level
            by level, ``plain`` path by path, or the one that was measured to train faster on the
            CPU.

    Raises:
        ValueError: an argument that no network can have, in one line that names it.
    """

    def __init__(
        self,
        spec: MultipathSpec,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        implementation: str | None = None,
    ) -> None:
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output_stride: {output_stride}; use one of {OUTPUT_STRIDES}")
        implementation = implementation or default_implementation(len(spec.depths), spec.width)
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"implementation: {implementation!r} is unknown; use {' or '.join(IMPLEMENTATIONS)}"
            )
        channels = spec.widths()[-1]
        classifier = Layer("fc", "linear", channels, num_classes, bias=True)
        super().__init__(
            _stem(in_chans, spec.widths()[0]),
            nn.Sequential(*_stages(spec, output_stride, implementation, drop_path_rate)),
            Head((classifier,), NetSpec(), global_pool, drop_rate),
            _feature_info(spec, output_stride),
        )
        self.spec = spec
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.output_stride = output_stride
        self.drop_rate = drop_rate
        self.init_weights()

    @jit_ignore
    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming``, as usual for ReLU and SGD, or ``trunc_normal``.

        The paths' convolutions start as they would standing alone, in either form.
        """
        init_layers(self, scheme, _kaiming)


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> MultipathNet:
    """The network of a record: ``args`` are `MultipathSpec`'s fields, and ``implementation`` if
    any.
    """
    fields = dict(args)
    implementation = fields.pop("implementation", None)
    spec = MultipathSpec.from_dict(fields)
    net = MultipathNet(
        spec, num_classes=num_classes, drop_path_rate=drop_path, implementation=implementation
    )
    net.init_weights(init)
    return net


def _kaiming(conv: nn.Conv2d) -> None:
    """By the outputs that an input of the convolution reaches, within its path."""
    he_normal(conv, conv.width if isinstance(conv, PathConv2d) else conv.out_channels)


def _stem(in_chans: int, channels: int) -> nn.Sequential:
    layers = OrderedDict(conv_norm(in_chans, channels, kernel=3).named_children())
    return nn.Sequential(OrderedDict(**layers, act=nn.ReLU(inplace=True)))


def _stages(
    spec: MultipathSpec, output_stride: int, implementation: str, drop_path_rate: float
) -> Iterator[Stage]:
    c_in, reached, dilation = spec.widths()[0], 1, 1
    rates = iter(drop_path_rates(drop_path_rate, STAGES * spec.modules))
    for stage, width in enumerate(spec.path_widths()):
        blocks: list[MultiPathBlock] = []
        for index in range(spec.modules):
            stride, first_dilation = 1, dilation
            if stage > 0 and index == 0:
                strided = reached < output_stride
                stride, dilation = (2, dilation) if strided else (1, dilation * 2)
                reached *= stride
            plan = PathsSpec(c_in, width, spec.depths, stride, (first_dilation, dilation))
            blocks.append(MultiPathBlock(spec, plan, implementation, next(rates)))
            c_in = spec.widths()[stage]
        yield Stage(blocks)


def _feature_info(spec: MultipathSpec, output_stride: int) -> list[dict[str, Any]]:
    return stage_info(spec.widths(), [min(2**stage, output_stride) for stage in range(STAGES)])
