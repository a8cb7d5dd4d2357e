"""ResNet-34 and -50 with narrowed blocks: timm's networks, but for the layers that differ."""

from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.pruning import specs


class SelectedConv2d(nn.Conv2d):
    """A 1x1 convolution that reads some channels of a stream. (N, C, H, W) to (N, C', H, W)."""

    keep_idx: Tensor

    def __init__(self, keep_idx: tuple[int, ...], c_out: int) -> None:
        super().__init__(len(keep_idx), c_out, 1, bias=False)
        self.register_buffer("keep_idx", torch.tensor(keep_idx), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of the kept channels."""
        return super().forward(x.index_select(1, self.keep_idx))


def timm_resnet(
    spec: specs.ImageNetBasicSpec | specs.BottleneckSpec,
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

    kind = BasicBlock if isinstance(spec, specs.ImageNetBasicSpec) else Bottleneck
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
    stages: Any = spec.inner
    for index, inner in enumerate(stages, start=1):
        for block, widths in zip(getattr(net, f"layer{index}"), inner, strict=True):
            if isinstance(spec, specs.ImageNetBasicSpec):
                block.conv1 = _conv(block.conv1, block.conv1.in_channels, widths)
                block.bn1 = nn.BatchNorm2d(widths)
                block.conv2 = _conv(block.conv2, widths, block.conv2.out_channels)
            else:
                _narrow_bottleneck(block, widths, spec.shortcut_bias)
    net.init_weights(zero_init_last=zero_init_last)
    return net  # type: ignore[no-any-return]


def _narrow_bottleneck(block: Any, widths: Any, shortcut_bias: bool) -> None:
    in_idx, first, second = widths
    block.conv1 = _first_conv(block.conv1, in_idx, first)
    block.bn1 = nn.BatchNorm2d(first)
    block.conv2 = _conv(block.conv2, first, second)
    block.bn2 = nn.BatchNorm2d(second)
    block.conv3 = _conv(block.conv3, second, block.conv3.out_channels)
    if shortcut_bias and block.downsample is not None:
        conv = block.downsample[0]
        block.downsample[0] = _conv(conv, conv.in_channels, conv.out_channels, bias=True)


def _first_conv(conv: nn.Conv2d, selection: specs.ChannelSelection, c_out: int) -> nn.Conv2d:
    if specs.indices(selection) == tuple(range(conv.in_channels)):
        return _conv(conv, specs.count(selection), c_out)
    return SelectedConv2d(specs.indices(selection), c_out)


def _conv(like: Any, c_in: int, c_out: int, bias: bool = False) -> nn.Conv2d:
    """A convolution of the same kind, of other widths."""
    geometry = (like.kernel_size, like.stride, like.padding, like.dilation)
    return nn.Conv2d(c_in, c_out, *geometry, bias=bias)
