"""The network a multi-path spec describes, and the networks the paper compares with.

Our reconstruction: the paper's layer table is unknown. Its baselines are ResNet-18 and SE-ResNet-18
with a 3x3 stem and no pooling after it. Their sizes are printed (43.4 and 45.1 MB) and not their
layers; the second is 45.05 MB here, the first 44.70, since no standard ResNet-18 has the printed
size. `registry.py` lists the models for timm.
"""

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.errors import did_you_mean
from convnext_study.models.blocks import Head, Stage, drop_path_rates, jit_ignore
from convnext_study.models.layers import DropPath, init_layers
from convnext_study.models.timm_model import TimmModel
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.multipath.paths import (
    IMPLEMENTATIONS,
    Paths,
    PathsSpec,
    default_implementation,
)
from convnext_study.studies.multipath.spec import SE_REDUCTION, STAGES, MultipathSpec

BASELINES = ("resnet18", "se_resnet18")
STEM_CHANNELS = 64
LARGER_STEM = 4  # factor by which timm's own stem shrinks the image more


class Attention(nn.Module):
    """One weight per group of channels, from the global means of all groups, by linear layers.

    A group is a path, which is our reconstruction, or a channel, as in squeeze and excitation (Hu
    et al., 2018). Paths are contiguous in the channels, so that weighting them after concatenation
    is the same as before.
    """

    def __init__(self, groups: int, hidden: int) -> None:
        super().__init__()
        self.groups = groups
        self.fc1 = nn.Linear(groups, hidden)
        self.fc2 = nn.Linear(hidden, groups)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each group of (N, C, H, W)."""
        means = x.mean((2, 3)).reshape(x.shape[0], self.groups, -1)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(means.mean(2)))))
        return x * weights.unsqueeze(2).expand_as(means).flatten(1)[:, :, None, None]


def make_attention(kind: str, paths: int, channels: int) -> nn.Module:
    """``none``, ``path`` or ``se``, as in the spec."""
    if kind == "none":
        return nn.Identity()
    if kind == "path":
        return Attention(paths, paths)
    return Attention(channels, max(1, channels // SE_REDUCTION))


class MultiPathBlock(nn.Module):
    """relu(drop_path(branch(x)) + shortcut(x))

    Maps (N, c_in, H, W) to (N, C, H', W'), C = paths * width. The branch is
    fuse(attention(paths(x))), or without paths attention(convs(x)).

    Args:
        spec: of the network.
        paths_spec: channels and stride here.
        implementation: of the paths, ``fused`` or ``plain``.
        drop_path_rate: of the branch.
    """

    def __init__(
        self, spec: MultipathSpec, paths_spec: PathsSpec, implementation: str, drop_path_rate: float
    ) -> None:
        super().__init__()
        c_in, channels = paths_spec.c_in, paths_spec.width * len(paths_spec.depths)
        multipath = spec.block == "multipath"
        self.paths = Paths(paths_spec, implementation) if multipath else basic(paths_spec)
        self.attention = make_attention(spec.attention, len(paths_spec.depths), channels)
        self.fuse = conv_norm(channels, channels) if multipath else nn.Identity()
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        same = c_in == channels and paths_spec.stride == 1
        stride = paths_spec.stride
        self.shortcut = nn.Identity() if same else conv_norm(c_in, channels, stride=stride)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, paths * width, H', W')."""
        y = self.fuse(self.attention(self.paths(x)))
        return self.act(self.drop_path(y) + self.shortcut(x))  # type: ignore[no-any-return]


def basic(paths_spec: PathsSpec) -> nn.Sequential:
    """3x3 convolutions in sequence, each with a BatchNorm, and a ReLU between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    c_in, width = paths_spec.c_in, paths_spec.width
    for index in range(paths_spec.depths[0]):
        if index > 0:
            layers[f"act{index}"] = nn.ReLU(inplace=True)
        stride = paths_spec.stride if index == 0 else 1
        layers[f"conv{index + 1}"] = nn.Conv2d(c_in, width, 3, stride, padding=1, bias=False)
        layers[f"norm{index + 1}"] = nn.BatchNorm2d(width)
        c_in = width
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
        global_pool: avg, max, avgmax, or '' for a map of logits.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last module, growing linearly from 0 at the first.
        implementation: of the paths, which affects only speed: ``fused`` level by level, ``plain``
            path by path; by default the one that was measured to train faster on the CPU.

    Raises:
        ValueError: an invalid argument, in one line that names it.
    """

    def __init__(
        self,
        spec: MultipathSpec,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        implementation: str | None = None,
    ) -> None:
        implementation = implementation or default_implementation(len(spec.depths), spec.width)
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"implementation: {implementation!r} is unknown; use {' or '.join(IMPLEMENTATIONS)}"
            )
        super().__init__(
            spec,
            _stem(in_chans, spec.widths()[0]),
            _stages(spec, implementation, drop_path_rate),
            Head(spec.widths()[-1], num_classes, global_pool, drop_rate),
            ((width, 2**stage) for stage, width in enumerate(spec.widths())),
            num_classes=num_classes,
            in_chans=in_chans,
            output_stride=32,
            drop_rate=drop_rate,
        )

    @jit_ignore
    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming``, as usual for ReLU and SGD, or ``trunc_normal``.

        In both forms the paths' convolutions start as separate ones would.
        """
        init_layers(self, scheme)


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> MultipathNet:
    """The network of a record: ``args`` are `MultipathSpec`'s fields and optionally
    ``implementation``."""
    fields = dict(args)
    implementation = fields.pop("implementation", None)
    spec = MultipathSpec.from_dict(fields)
    net = MultipathNet(
        spec, num_classes=num_classes, drop_path_rate=drop_path, implementation=implementation
    )
    net.init_weights(init)
    return net


def _stem(in_chans: int, channels: int) -> nn.Sequential:
    layers = OrderedDict(conv_norm(in_chans, channels, kernel=3).named_children())
    return nn.Sequential(OrderedDict(**layers, act=nn.ReLU(inplace=True)))


def _stages(spec: MultipathSpec, implementation: str, drop_path_rate: float) -> Iterator[Stage]:
    c_in = spec.widths()[0]
    rates = iter(drop_path_rates(drop_path_rate, STAGES * spec.modules))
    for stage, (width, channels) in enumerate(zip(spec.path_widths(), spec.widths(), strict=True)):
        blocks: list[MultiPathBlock] = []
        for index in range(spec.modules):
            stride = 2 if stage > 0 and index == 0 else 1
            paths_spec = PathsSpec(c_in, width, spec.depths, stride)
            blocks.append(MultiPathBlock(spec, paths_spec, implementation, next(rates)))
            c_in = channels
        yield Stage(blocks)


def resnet18(*, se: bool = False, num_classes: int = 10, in_chans: int = 3, **kwargs: Any) -> Any:
    """timm's ResNet-18 for small images: (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        se: squeeze and excitation with 16 channels per hidden unit, exactly, and with biases.
        num_classes: 0 drops the classifier, as in timm.
        in_chans: channels of the images.
        kwargs: further arguments of timm's ResNet. The last norm of a branch starts at 1 unless
            ``zero_init_last``, as in the networks it is compared with.
    """
    from timm.layers import SEModule
    from timm.models.resnet import BasicBlock, ResNet

    attention = partial(SEModule, rd_ratio=1 / SE_REDUCTION, rd_divisor=1) if se else None
    kwargs = {"zero_init_last": False, **kwargs}
    net: Any = ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes=num_classes,
        in_chans=in_chans,
        block_args={"attn_layer": attention},
        **kwargs,
    )
    net.conv1 = nn.Conv2d(in_chans, STEM_CHANNELS, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    for info in net.feature_info:
        info["reduction"] = max(1, info["reduction"] // LARGER_STEM)
    return net


def build_baseline(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> Any:
    """The baseline ``name`` in a record's ``args``. Raises SpecError for another name."""
    name = args.get("name")
    if name not in BASELINES:
        raise SpecError(f"name: no baseline {name!r}{did_you_mean(str(name), list(BASELINES))}")
    net = resnet18(se=name == "se_resnet18", num_classes=num_classes, drop_path_rate=drop_path)
    if init == "trunc_normal":  # its own initialization is the usual one for ReLU and SGD
        init_layers(net, init)
    return net
