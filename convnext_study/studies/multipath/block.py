"""The blocks of a multi-path network. Our reconstruction."""

from collections import OrderedDict

from torch import Tensor, nn

from convnext_study.models.layers import DropPath
from convnext_study.studies.multipath.attention import make_attention
from convnext_study.studies.multipath.paths import Paths, PathsSpec
from convnext_study.studies.multipath.spec import MultipathSpec


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
