"""Blocks and heads of the study's networks. ``norm`` is BatchNorm everywhere."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.models.blocks import Head
from convnext_study.models.layers import DropPath
from convnext_study.studies.pruning.spec import (
    POOL,
    SIDE,
    ChannelSelection,
    VggSpec,
    count,
    indices,
)


class Select(nn.Module):
    """Selects channels of a stream that keeps its width. Maps (N, C, H, W) to (N, kept, H, W)."""

    keep_idx: Tensor

    def __init__(self, keep_idx: tuple[int, ...]) -> None:
        super().__init__()
        # Not part of the state: the spec has it.
        self.register_buffer("keep_idx", torch.tensor(keep_idx), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The kept channels, in order."""
        return x.index_select(1, self.keep_idx)


class SelectedConv2d(nn.Conv2d):
    """A 1x1 convolution that reads some channels of a stream. (N, C, H, W) to (N, C', H, W)."""

    keep_idx: Tensor

    def __init__(self, keep_idx: tuple[int, ...], c_out: int) -> None:
        super().__init__(len(keep_idx), c_out, 1, bias=False)
        self.register_buffer("keep_idx", torch.tensor(keep_idx), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of the kept channels."""
        return super().forward(x.index_select(1, self.keep_idx))


def select(selection: ChannelSelection, stream: int) -> nn.Module:
    """Selects channels of a stream; the identity if these are all of them."""
    keep_idx = indices(selection)
    return nn.Identity() if keep_idx == tuple(range(stream)) else Select(keep_idx)


def named(**layers: nn.Module | None) -> nn.Sequential:
    """A sequence of named layers, without those that are None."""
    return nn.Sequential(OrderedDict({k: v for k, v in layers.items() if v is not None}))


def norm_select_act(
    selection: ChannelSelection, stream: int, **layers: nn.Module | None
) -> nn.Sequential:
    """BatchNorm over a stream, an activation, a selection of its channels, then ``layers``."""
    norm, act = nn.BatchNorm2d(stream), nn.ReLU(inplace=True)
    return named(norm=norm, act=act, select=select(selection, stream), **layers)


def conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """A padded 3x3 convolution without bias."""
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)


def conv1x1(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(c_in, c_out, 1, stride, bias=False)


def projection(c_in: int, out: int, stride: int) -> nn.Module:
    """The 1x1 of a shortcut that changes width or size, else the identity."""
    return nn.Identity() if c_in == out and stride == 1 else conv1x1(c_in, out, stride)


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: average pooling where the map shrinks, and zero channels.

    The authors' code stops the gradient here; this does not.
    """

    def __init__(self, stride: int, added: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + added, H', W')."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return F.pad(x, (0, 0, 0, 0, 0, self.added))


class BasicBlock(nn.Module):
    """act2(drop_path(norm2(conv2(act1(norm1(conv1(x)))))) + shortcut(x))"""

    def __init__(self, c_in: int, hidden: int, out: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = conv3x3(c_in, hidden, stride)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(hidden, out)
        self.norm2 = nn.BatchNorm2d(out)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        same = stride == 1 and c_in == out
        self.shortcut = nn.Identity() if same else PaddedShortcut(stride, out - c_in)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(self.drop_path(y) + self.shortcut(x))  # type: ignore[no-any-return]


class PreBottleneck(nn.Module):
    """drop_path(conv3(f3(conv2(f2(conv1(select1(f1(x))))))) + shortcut(x), f = act(norm(.))

    ``hidden`` are the channels it reads and the widths of the first 1x1 and of the strided 3x3. A
    1x1 in the shortcut reads ``x``, or with ``from_act`` the first activation.
    """

    def __init__(
        self,
        c_in: int,
        hidden: tuple[ChannelSelection, int, int],
        out: int,
        stride: int,
        drop_path: float,
        from_act: bool = False,
    ) -> None:
        super().__init__()
        in_idx, first, second = hidden
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU(inplace=True)
        self.select1 = select(in_idx, c_in)
        self.conv1 = conv1x1(count(in_idx), first)
        self.norm2 = nn.BatchNorm2d(first)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(first, second, stride)
        self.norm3 = nn.BatchNorm2d(second)
        self.act3 = nn.ReLU(inplace=True)
        self.conv3 = conv1x1(second, out)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.shortcut = projection(c_in, out, stride)
        self.from_act = from_act and isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        active = self.act1(self.norm1(x))
        y = self.act2(self.norm2(self.conv1(self.select1(active))))
        y = self.conv3(self.act3(self.norm3(self.conv2(y))))
        shortcut = self.shortcut(active if self.from_act else x)
        return self.drop_path(y) + shortcut  # type: ignore[no-any-return]


class BranchlessBlock(nn.Module):
    """shortcut(act1(norm1(x))): a block with a projection, without its branch."""

    def __init__(self, c_in: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU(inplace=True)
        self.shortcut = projection(c_in, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        return self.shortcut(self.act1(self.norm1(x)))  # type: ignore[no-any-return]


class DenseLayer(nn.Module):
    """[x, y], y = conv1(f1(x)) or, in a bottleneck, conv2(f2(conv1(f1(x)))), f = act(norm(.))"""

    def __init__(self, c_in: int, hidden: tuple[ChannelSelection, ...], growth: int) -> None:
        super().__init__()
        read, bottleneck = count(hidden[0]), len(hidden) > 1
        width = count(hidden[-1])
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU(inplace=True)
        self.select1 = select(hidden[0], c_in)
        self.conv1 = conv1x1(read, width) if bottleneck else conv3x3(read, growth)
        self.norm2: nn.Module = nn.BatchNorm2d(width) if bottleneck else nn.Identity()
        self.act2: nn.Module = nn.ReLU(inplace=True) if bottleneck else nn.Identity()
        self.conv2: nn.Module = conv3x3(width, growth) if bottleneck else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + growth, H, W)."""
        y = self.conv1(self.select1(self.act1(self.norm1(x))))
        return torch.cat([x, self.conv2(self.act2(self.norm2(y)))], dim=1)


class VggHead(Head):
    """classifier(hidden(pool(x))); hidden layers read the mean of the map, or all of it.

    Maps (N, channels, H, W) to logits (N, num_classes). Hidden layers cannot be applied at every
    position, so with them a head without pooling has no classifier. ``pool_type`` and ``drop_rate``
    are as in `Head`.
    """

    def __init__(
        self, spec: VggSpec, channels: int, num_classes: int, pool_type: str, drop_rate: float
    ) -> None:
        features = spec.hidden[-1] if spec.hidden else channels
        super().__init__(features, num_classes, pool_type, drop_rate)
        self.flattens = spec.flattens
        self.shrink: nn.Module = nn.MaxPool2d(2) if spec.widths[-1] == POOL else nn.Identity()
        self.resize: nn.Module = nn.Identity()
        if spec.flattens:
            self.resize = nn.AdaptiveAvgPool2d(SIDE)
        self.hidden = _hidden(spec, channels)
        self._check(num_classes)

    def reset(self, features: int, num_classes: int, pool_type: str | None) -> None:
        """As for any head. Raises ValueError for a classifier without pooling that has hidden
        layers."""
        super().reset(features, num_classes, pool_type)
        self._check(num_classes)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def shorten(self) -> None:
        """Remove the layers that only fit the last stage's map."""
        super().shorten()
        self.flattens = False
        self.shrink = self.resize = self.hidden = nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map (N, C, H, W) to logits, or with ``pre_logits`` to the classifier's input."""
        if self.pool_type == "":
            x = self.drop(x)
            return x if pre_logits else self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.shrink(x)
        x = self.resize(x) if self.flattens else self._pool(x)
        x = self.drop(self.hidden(x.flatten(1)))
        return x if pre_logits else self.fc(x)

    def _check(self, num_classes: int) -> None:
        if self.pool_type == "" and num_classes and not isinstance(self.hidden, nn.Identity):
            raise ValueError("global_pool: '' needs num_classes 0 in a VGG with hidden layers")


def _hidden(spec: VggSpec, channels: int) -> nn.Module:
    features = channels * SIDE**2 if spec.flattens else channels
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(spec.hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(features, width)
        if spec.head != "4096":
            layers[f"norm{number}"] = nn.BatchNorm1d(width)
        layers[f"act{number}"] = nn.ReLU(inplace=True)
        if spec.head == "4096":
            layers[f"drop{number}"] = nn.Dropout(0.5)
        features = width
    return named(**layers) if layers else nn.Identity()
