"""ResNet-34 and -50 with narrowed blocks: timm's networks, but for the layers that differ."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.pruning.spec_fields import Read, count, indices
from convnext_study.studies.pruning.specs import BottleneckSpec, ImageNetBasicSpec


class SelectedConv2d(nn.Conv2d):
    """A 1x1 convolution that reads some channels of a stream. Maps (N, C, H, W) to (N, C', H, W).

    Args:
        kept: the channels that it reads.
        c_out: its output channels.
    """

    kept: Tensor

    def __init__(self, kept: Sequence[int], c_out: int) -> None:
        super().__init__(len(kept), c_out, 1, bias=False)
        # Which they are stands in the spec, and is no state.
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of the kept channels."""
        return super().forward(x.index_select(1, self.kept))


def timm_resnet(
    spec: ImageNetBasicSpec | BottleneckSpec,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    output_stride: int = 32,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    zero_init_last: bool = False,
) -> nn.Module:
    """timm's ResNet with this spec's widths; the other arguments are those of timm's ``ResNet``.

    The last norm of a branch starts at 1 unless ``zero_init_last``, as in torchvision. Weights of
    torchvision's and timm's ResNets fit the networks that are not narrowed, but for biased
    shortcuts.
    """
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    kind = BasicBlock if isinstance(spec, ImageNetBasicSpec) else Bottleneck
    net = ResNet(
        kind,
        tuple(map(len, spec.inner)),
        num_classes=num_classes,
        in_chans=in_chans,
        global_pool=global_pool,
        output_stride=output_stride,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        zero_init_last=zero_init_last,
    )
    net.spec = spec
    for index, inner in enumerate(spec.inner, start=1):
        for block, widths in zip(getattr(net, f"layer{index}"), inner, strict=True):
            if isinstance(spec, ImageNetBasicSpec):
                _narrow_basic(block, widths)
            else:
                _narrow_bottleneck(block, widths, spec.shortcut_bias)
    net.init_weights(zero_init_last=zero_init_last)
    return net  # type: ignore[no-any-return]


def _narrow_basic(block: Any, width: Any) -> None:
    block.conv1 = _conv(block.conv1, block.conv1.in_channels, width)
    block.bn1 = nn.BatchNorm2d(width)
    block.conv2 = _conv(block.conv2, width, block.conv2.out_channels)


def _narrow_bottleneck(block: Any, widths: Any, shortcut_bias: bool) -> None:
    read, first, second = widths
    block.conv1 = _reader(block.conv1, read, first)
    block.bn1 = nn.BatchNorm2d(first)
    block.conv2 = _conv(block.conv2, first, second)
    block.bn2 = nn.BatchNorm2d(second)
    block.conv3 = _conv(block.conv3, second, block.conv3.out_channels)
    if shortcut_bias and block.downsample is not None:
        conv = block.downsample[0]
        block.downsample[0] = _conv(conv, conv.in_channels, conv.out_channels, bias=True)


def _reader(conv: nn.Conv2d, read: Read, c_out: int) -> nn.Conv2d:
    if indices(read) == tuple(range(conv.in_channels)):
        return _conv(conv, count(read), c_out)
    return SelectedConv2d(indices(read), c_out)


def _conv(like: nn.Conv2d, c_in: int, c_out: int, bias: bool = False) -> nn.Conv2d:
    """A convolution of the same kind, of other widths."""
    return nn.Conv2d(
        c_in,
        c_out,
        like.kernel_size,  # type: ignore[arg-type]
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        like.dilation,  # type: ignore[arg-type]
        bias=bias,
    )
