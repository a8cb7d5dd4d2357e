"""Small networks of every family of the pruning study."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import ModelRef
from convnext_study.studies.pruning.channel_groups import Kept, check_kept, spec_groups
from convnext_study.studies.pruning.dependency_graph import DependencyGraph
from convnext_study.studies.pruning.families import make_network
from convnext_study.studies.pruning.removal import network_of, spec_of
from convnext_study.studies.pruning.spec import (
    BottleneckSpec,
    DenseNetSpec,
    ImageNetBasicSpec,
    PreActSpec,
    PreResNetSpec,
    ResNetSpec,
    Spec,
    VggSpec,
    densenet,
    preresnet,
)

SIZE = 16  # of the images, in pixels

VGG = VggSpec(widths=(6, 8, "M", 8, 10), head="512", hidden=(12,))
VGG_LINEAR = VggSpec(widths=(6, "M", 8, "M", 8, 10))
VGG_BIASED = VggSpec(
    widths=(6, 8, "M", 8, "M"), head="4096", hidden=(12, 9), conv_bias=True, batchnorm=False
)
VGG_BN = VggSpec(widths=(6, "M", 8, "M"), head="4096bn", hidden=(12, 9), conv_bias=True)
RESNET = ResNetSpec(inner=((6, 5), (7, 6), (8, 9)), widths=(6, 8, 10))
PRERESNET = preresnet(2, (4, 5, 6))
PRERESNET_SELECTED = PreResNetSpec(
    inner=(((3, 4, 3), ((0, 2, 7, 15), 3, 4)), (((1, 5, 9), 4, 5), (11, 3, 2))),
    last=(0, 3, 4, 19),
    widths=(4, 5),
)
DENSENET = densenet(2, growth=4)
DENSENET_BC = densenet(2, growth=4, compression=2, bottleneck=True)
DENSENET_SELECTED = DenseNetSpec(
    inner=(((7,), ((0, 3, 9),)), ((16,), (19,))), transitions=((1, 2, 5, 8),), last=20, growth=4
)
BASIC34 = ImageNetBasicSpec(inner=((8, 5), (6,), (7,), (9,)))
BOTTLENECK = BottleneckSpec(
    inner=(((64, 5, 6), (256, 4, 7)), ((256, 6, 5),), ((512, 4, 5),), ((1024, 5, 4),))
)
BOTTLENECK_SELECTED = BottleneckSpec(
    inner=(((35, 5, 6), ((1, 7, 200), 4, 7)), ((9, 6, 5),), ((8, 4, 5),), ((10, 5, 4),)),
    shortcut_bias=True,
)
PREACT = PreActSpec(stages=((1, True), (0, False), (1, False), (2, True)))

SMALL: dict[str, Spec] = {
    "vgg": VGG,
    "vgg_linear": VGG_LINEAR,
    "vgg_biased": VGG_BIASED,
    "vgg_bn": VGG_BN,
    "resnet": RESNET,
    "preresnet": PRERESNET,
    "preresnet_selected": PRERESNET_SELECTED,
    "densenet": DENSENET,
    "densenet_bc": DENSENET_BC,
    "densenet_selected": DENSENET_SELECTED,
    "basic34": BASIC34,
    "bottleneck": BOTTLENECK,
    "bottleneck_selected": BOTTLENECK_SELECTED,
}


def small(spec: Spec, **kwargs: Any) -> Any:
    """The spec's network in double precision and eval mode, its norms settled."""
    torch.manual_seed(0)
    return settle(make_network(spec, num_classes=5, **kwargs))


def settle(net: nn.Module) -> Any:
    """Double precision, weights, scales and statistics of norms that differ by channel."""
    generator = torch.Generator().manual_seed(3)
    net.double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                variance, mean = (module.get_buffer(f"running_{one}") for one in ("var", "mean"))
                for weight in (module.weight, variance):
                    weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
                for weight in (module.bias, mean):
                    weight.copy_(torch.rand(weight.shape, generator=generator) - 0.5)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(3.0)
                if module.bias is not None:
                    module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return net.eval()


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(
        count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def _road(step: str, depths: tuple[int, ...]) -> ModelRef:
    spec = get_roadmap("nano").upto(step).replace(depths=depths, width=8)
    return ModelRef(builder="roadmap", args=spec.to_dict())


def _timm(name: str, **shape: list[int] | int) -> ModelRef:
    return ModelRef(builder="timm", args={"name": name, **shape})


# Networks of other rooms, small.
FOREIGN: dict[str, ModelRef] = {
    "roadmap_end": _road("separate_downsampling", (1, 1, 2, 1)),
    "roadmap_start": _road("resnet", (1, 2, 1, 1)),
    "roadmap_depthwise": _road("invert_dimensions", (1, 2, 1, 1)),
    "convnext_atto": _timm("convnext_atto", depths=[1, 1, 1, 1], dims=[8, 12, 16, 20]),
    "resnet18": _timm("resnet18"),
    "densenet": _timm("densenet121", growth_rate=4, block_config=[2, 2]),
}


def foreign(name: str) -> Any:
    torch.manual_seed(0)
    return settle(network_of(FOREIGN[name], 5))


def fields(spec: Spec) -> dict[str, Any]:
    """Keywords that make a published network of the family this one."""
    values = spec.to_dict()
    values.pop("family")
    return values


# A narrow network of each family, as keywords of a model in timm.
NARROW: dict[str, dict[str, Any]] = {
    "pruning_vgg16": fields(VGG),
    "pruning_vgg19_slim": fields(VGG_LINEAR),
    "pruning_vgg11_slim_imagenet": fields(VGG_BN),
    "pruning_resnet56": fields(RESNET),
    "pruning_preresnet164": fields(PRERESNET_SELECTED),
    "pruning_densenet40": fields(DENSENET_SELECTED),
    "pruning_densenet_bc_100": fields(DENSENET_BC),
    "pruning_preact_resnet50": fields(PREACT),
    "pruning_resnet34": fields(BASIC34),
    "pruning_resnet50_2x": fields(BOTTLENECK_SELECTED),
}
OURS = [name for name in NARROW if not name.startswith(("pruning_resnet34", "pruning_resnet50"))]


def mask(net: nn.Module, kept: Kept, image_size: tuple[int, int, int]) -> None:
    """Set all weights that read the other channels to zero, in place."""
    spec = spec_of(net)
    if spec is None:
        DependencyGraph(net, image_size).mask(kept)
        return
    for group, channels in check_kept(kept, spec_groups(spec)):
        for reader, repeat in group.consumers:
            columns = [at * repeat + i for at in group.gone(channels) for i in range(repeat)]
            net.get_parameter(f"{reader}.weight").detach()[:, columns] = 0.0
