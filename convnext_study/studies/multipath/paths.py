"""Parallel paths of different depths, computed path by path or level by level.

Level by level (the fused form), the convolutions at one depth of all paths are one: the first 1x1
convolutions, which share their input, one dense convolution; the 3x3 convolutions one grouped
convolution over the paths that reach that depth. The parameters are stored in this form, and path
by path (the plain form) uses slices of them. A BatchNorm treats each channel separately, so one
over all paths is the same as one per path.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMPLEMENTATIONS = ("fused", "plain")
# Measured on the CPU, one thread, channels last: images per second, fused over plain.
#   training, batch 64   4 paths of 4 channels 1.27, of 8 0.97-1.09, of 12 to 40 0.85-0.97
#   training, batch 16-32   8 paths of 16 channels 1.03-1.17
#   inference, batch 16 to 128   4 paths 0.88-1.03, 8 paths 1.03
#   either, batch 1   4 paths 1.1-1.4, 8 paths 1.5-1.7
# Fusing saves calls, but the larger working set no longer fits the cache.
FEW_PATHS = 4
NARROW_PATH = 8


def default_implementation(paths: int, width: int) -> str:
    """The form that trains faster on the CPU in batches of 16 and more.

    For single images, and where calls are expensive, as on a GPU with small maps, prefer ``fused``.
    """
    return "plain" if paths <= FEW_PATHS and width >= NARROW_PATH else "fused"


@dataclass(frozen=True)
class PathsSpec:
    """Shape of the paths of one module: ``c_in`` to ``width`` channels each.

    The stride is that of each path's first 3x3 convolution, or of its 1x1 where it has none.
    """

    c_in: int
    width: int
    depths: tuple[int, ...]
    stride: int = 1


class PathConv2d(nn.Conv2d):
    """Convolutions of one shape, one per path, without bias: dense if all have the same input.

    Maps (N, c_in, H, W), or (N, paths * width, H, W) where each has its own input, to
    (N, paths * width, H', W'); with ``path``, that path's input to (N, width, H', W').
    """

    def __init__(
        self, paths_spec: PathsSpec, paths: int, *, kernel: int = 1, stride: int = 1
    ) -> None:
        shared = kernel == 1
        super().__init__(
            paths_spec.c_in if shared else paths * paths_spec.width,
            paths * paths_spec.width,
            kernel,
            stride,
            padding=kernel // 2,
            groups=1 if shared else paths,
            bias=False,
        )
        self.width = paths_spec.width

    def forward(self, x: Tensor, path: int = -1) -> Tensor:
        """Convolve all paths, or only ``path`` with its slice of the weight, to (N, C, H', W')."""
        weight, groups = self.weight, self.groups
        if path >= 0:
            weight, groups = weight[path * self.width : (path + 1) * self.width], 1
        return F.conv2d(x, weight, None, self.stride, self.padding, groups=groups)


class Level(nn.Module):
    """The convolutions at one depth of all paths that reach it, BatchNorm, ReLU."""

    def __init__(self, conv: PathConv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, paths * width, H', W'), all paths at once."""
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]

    def one_path(self, x: Tensor, path: int) -> Tensor:
        """As ``forward``, for one path: its input to (N, width, H', W')."""
        begin, end = path * self.conv.width, (path + 1) * self.conv.width
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None and var is not None  # noqa: S101
        if self.norm.training and path == 0 and self.norm.num_batches_tracked is not None:
            self.norm.num_batches_tracked.add_(1)
        x = F.batch_norm(
            self.conv(x, path),
            mean[begin:end],
            var[begin:end],
            self.norm.weight[begin:end],
            self.norm.bias[begin:end],
            self.norm.training,
            self.norm.momentum or 0.0,
            self.norm.eps,
        )
        return self.act(x)  # type: ignore[no-any-return]


class Paths(nn.Module):
    """All paths in parallel: (N, c_in, H, W) to (N, paths * width, H', W').

    Args:
        paths_spec: their shape.
        implementation: ``fused``, level by level, or ``plain``, path by path: the same parameters,
            state dict and outputs.
    """

    def __init__(self, paths_spec: PathsSpec, implementation: str) -> None:
        super().__init__()
        self.fused = implementation == "fused"
        self.width = paths_spec.width
        self.shallow = paths_spec.depths.count(0)
        self.deep = len(paths_spec.depths) - self.shallow
        self.direct = None
        if self.shallow:
            self.direct = Level(PathConv2d(paths_spec, self.shallow, stride=paths_spec.stride))
        # How many paths reach each level; level 0 has the 1x1 convolutions.
        self.active = [self.deep]
        levels = [Level(PathConv2d(paths_spec, self.deep))]
        for depth in range(1, paths_spec.depths[-1] + 1):
            self.active.append(sum(path >= depth for path in paths_spec.depths))
            stride = paths_spec.stride if depth == 1 else 1
            conv = PathConv2d(paths_spec, self.active[-1], kernel=3, stride=stride)
            levels.append(Level(conv))
        self.levels = nn.ModuleList(levels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, paths * width, H', W')."""
        fused = self.fused
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            fused = fused or self._norms_replaced()
        return torch.cat(self._by_level(x) if fused else self._by_path(x), 1)

    def _norms_replaced(self) -> bool:
        """Whether norms do what slices of them cannot, such as synchronizing across processes."""
        norms = [level.norm for level in self.levels]
        return any(type(norm) is not nn.BatchNorm2d for norm in norms)

    def _by_level(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        if self.direct is not None:
            outputs.append(self.direct(x))
        reached = self.deep
        for depth, level in enumerate(self.levels):
            active = self.active[depth]
            if active < reached:
                sizes = [(reached - active) * self.width, active * self.width]
                ended, x = torch.split(x, sizes, 1)
                outputs.append(ended)
            x, reached = level(x), active
        outputs.append(x)
        return outputs

    def _by_path(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        if self.direct is not None:
            for path in range(self.shallow):
                outputs.append(self.direct.one_path(x, path))
        for path in range(self.deep):
            y = x
            for depth, level in enumerate(self.levels):
                position = path - (self.deep - self.active[depth])  # among those at this depth
                if position >= 0:
                    y = level.one_path(y, position)  # type: ignore[operator]
            outputs.append(y)
        return outputs
