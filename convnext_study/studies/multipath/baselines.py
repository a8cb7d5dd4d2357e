"""The networks the paper compares with, built for 32x32 images from timm's parts.

ResNet-18 and SE-ResNet-18 with a 3x3 stem and no pooling after it. The paper prints their sizes
(43.4 and 45.1 MB) and not their layers; the second is 45.05 MB here, the first 44.70, since no
standard ResNet-18 has the size it prints.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.roadmap.spec import SpecError
from convnext_study.studies.multipath.spec import SE_REDUCTION

if TYPE_CHECKING:
    from timm.models.resnet import ResNet

BASELINES = ("resnet18", "se_resnet18")
STRIDES = (2, 4, 8, 16, 32)
STEM_CHANNELS = 64
LARGER_STEM = 4  # how much more timm's own stem shrinks the image


def resnet18(
    *,
    se: bool = False,
    num_classes: int = 10,
    in_chans: int = 3,
    output_stride: int = 32,
    **kwargs: Any,
) -> ResNet:
    """timm's ResNet-18 for small images: (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        se: squeeze and excitation with 16 channels per hidden unit, exactly, and with biases.
        num_classes: 0 drops the classifier, as in timm.
        in_chans: channels of the images.
        output_stride: 8 or more for the network as it is; 4 and 2 turn strides into dilation.
        kwargs: further arguments of timm's ResNet. The last norm of a branch starts at 1 unless
            ``zero_init_last``, as in the networks it is compared with.

    Raises:
        ValueError: an output stride that the network cannot have.
    """
    from timm.layers import SEModule
    from timm.models.resnet import BasicBlock, ResNet
    from torch import nn

    if output_stride not in STRIDES:
        raise ValueError(f"output_stride: {output_stride}; use one of {STRIDES}")
    attention = partial(SEModule, rd_ratio=1 / SE_REDUCTION, rd_divisor=1) if se else None
    kwargs = {"zero_init_last": False, **kwargs}
    net = ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes=num_classes,
        in_chans=in_chans,
        output_stride=min(LARGER_STEM * output_stride, 32),
        block_args={"attn_layer": attention},
        **kwargs,
    )
    net.conv1 = nn.Conv2d(in_chans, STEM_CHANNELS, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    for info in net.feature_info:
        info["reduction"] = max(1, info["reduction"] // LARGER_STEM)
    return net


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> ResNet:
    """The baseline of a record: ``args`` hold its ``name``. Raises SpecError for another name."""
    from torch import nn

    name = args.get("name")
    if name not in BASELINES:
        raise SpecError(f"name: no baseline {name!r}{did_you_mean(str(name), list(BASELINES))}")
    net = resnet18(se=name == "se_resnet18", num_classes=num_classes, drop_path_rate=drop_path)
    if init == "trunc_normal":
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return net
