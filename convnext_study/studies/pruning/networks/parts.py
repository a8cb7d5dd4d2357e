"""Blocks and stages of the networks for small images.

Their docstrings say what they compute. ``norm`` is BatchNorm everywhere.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.models.layers import DropPath
from convnext_study.models.recompute import checkpointed
from convnext_study.studies.pruning.spec_fields import Read, count, indices


class Select(nn.Module):
    """Some channels of a stream that keeps its width. Maps (N, C, H, W) to (N, kept, H, W)."""

    kept: Tensor

    def __init__(self, kept: Sequence[int]) -> None:
        super().__init__()
        # Which they are stands in the spec, and is no state.
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The kept channels, in order."""
        return x.index_select(1, self.kept)


def select(read: Read, stream: int) -> nn.Module:
    """The channels that are read of a stream; the identity where that is all of them."""
    kept = indices(read)
    return nn.Identity() if kept == tuple(range(stream)) else Select(kept)


class Stage(nn.Module):
    """tail(blocks(downsample(x)))"""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        downsample: nn.Module | None = None,
        tail: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)
        self.tail = tail or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self.tail(checkpointed(self.blocks, x))  # type: ignore[no-any-return]
        return self.tail(self.blocks(x))  # type: ignore[no-any-return]


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: 2x2 means where the map shrinks, channels of zeros.

    The authors' code cuts the gradient here; this does not.
    """

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride = stride
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + more, H', W')."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return F.pad(x, (0, 0, 0, 0, 0, self.more))


class BasicBlock(nn.Module):
    """act2(drop_path(norm2(conv2(act1(norm1(conv1(x)))))) + shortcut(x))"""

    def __init__(self, c_in: int, inner: int, out: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.conv1 = conv3x3(c_in, inner, stride)
        self.norm1 = nn.BatchNorm2d(inner)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(inner, out)
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

    Args:
        c_in: channels of the stream.
        inner: channels it reads, widths of the first 1x1 and of the 3x3.
        out: channels of the stream behind it.
        stride: of the 3x3.
        shortcut_from: what a 1x1 in the shortcut reads: ``x``, or ``act`` for the first
            activation.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        c_in: int,
        inner: tuple[Read, int, int],
        out: int,
        stride: int,
        shortcut_from: str,
        drop_path: float,
    ) -> None:
        super().__init__()
        read, first, second = inner
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU(inplace=True)
        self.select1 = select(read, c_in)
        self.conv1 = nn.Conv2d(count(read), first, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(first)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(first, second, stride)
        self.norm3 = nn.BatchNorm2d(second)
        self.act3 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(second, out, 1, bias=False)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.shortcut, self.from_act = projection(c_in, out, stride), False
        if isinstance(self.shortcut, nn.Conv2d):
            self.from_act = shortcut_from == "act"

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        active = self.act1(self.norm1(x))
        y = self.act2(self.norm2(self.conv1(self.select1(active))))
        y = self.conv3(self.act3(self.norm3(self.conv2(y))))
        shortcut = self.shortcut(active if self.from_act else x)
        return self.drop_path(y) + shortcut  # type: ignore[no-any-return]


class BranchlessBlock(nn.Module):
    """shortcut(act1(norm1(x))): what is left of a changing block without its branch."""

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

    def __init__(self, c_in: int, inner: tuple[Read, ...], growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU(inplace=True)
        self.select1 = select(inner[0], c_in)
        read, bottleneck = count(inner[0]), len(inner) > 1
        width = count(inner[1]) if bottleneck else growth
        self.conv1 = nn.Conv2d(read, width, 1, bias=False) if bottleneck else conv3x3(read, width)
        self.norm2: nn.Module = nn.BatchNorm2d(width) if bottleneck else nn.Identity()
        self.act2: nn.Module = nn.ReLU(inplace=True) if bottleneck else nn.Identity()
        self.conv2: nn.Module = conv3x3(width, growth) if bottleneck else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + growth, H, W)."""
        y = self.conv1(self.select1(self.act1(self.norm1(x))))
        return torch.cat([x, self.conv2(self.act2(self.norm2(y)))], dim=1)


def norm_select_act(read: Read, stream: int) -> nn.Sequential:
    """BatchNorm over a stream, an activation, and the channels of it that are read."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(stream), act=nn.ReLU(inplace=True), select=select(read, stream)
        )
    )


def projection(c_in: int, out: int, stride: int) -> nn.Module:
    """The 1x1 of a changing shortcut; the identity of one that changes nothing."""
    if c_in == out and stride == 1:
        return nn.Identity()
    return nn.Conv2d(c_in, out, 1, stride, bias=False)


def conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the size of the map, but for its stride."""
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
