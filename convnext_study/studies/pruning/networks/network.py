"""The network that a spec of this study describes, with what users of timm expect of a model."""

from __future__ import annotations

import math

from torch import nn

from convnext_study.models.blocks import drop_path_rates, jit_ignore
from convnext_study.models.head import Head
from convnext_study.models.initial import init_layers
from convnext_study.models.layer_specs import Layer
from convnext_study.models.timm_model import TimmModel, stage_info
from convnext_study.roadmap.spec import NetSpec
from convnext_study.studies.pruning.networks import families
from convnext_study.studies.pruning.networks.families import Body
from convnext_study.studies.pruning.networks.vgg_head import VggHead
from convnext_study.studies.pruning.specs import (
    DenseNetSpec,
    PreActSpec,
    PreResNetSpec,
    ResNetSpec,
    VggSpec,
)

LINEAR_STD = 0.01  # of a VGG's linear layers
SmallSpec = VggSpec | ResNetSpec | PreResNetSpec | DenseNetSpec | PreActSpec


class PruningNet(TimmModel):
    """A network of this study whose layers neither timm nor torchvision have.

    Maps images (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        spec: what to build.
        num_classes: 0 leaves the classifier out; the network then returns its features.
        in_chans: channels of the image.
        global_pool: avg, max, avgmax, or '' for a map of logits, one of them at each position.
        output_stride: 32; these networks have no dilated form.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first;
            0 for networks without residual blocks.

    Raises:
        ValueError: an argument that no such network can have, in one line that names it.
    """

    def __init__(
        self,
        spec: SmallSpec,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if output_stride != 32:
            raise ValueError(f"output_stride: {output_stride}; a {spec.family} has 32 alone")
        if drop_path_rate and isinstance(spec, VggSpec | DenseNetSpec):
            raise ValueError(f"drop_path_rate: a {spec.family} has no residual branches; use 0")
        body = _body(spec, in_chans, drop_path_rate)
        channels = body.channels[-1]
        fc = Layer("fc", "linear", channels, num_classes, bias=True)
        head = (
            VggHead(spec, channels, num_classes, global_pool, drop_rate)
            if isinstance(spec, VggSpec)
            else Head((fc,), NetSpec(), global_pool, drop_rate)
        )
        super().__init__(
            body.stem, nn.Sequential(*body.stages), head, stage_info(body.channels, body.reductions)
        )
        if isinstance(spec, VggSpec) and spec.hidden:
            self.head_hidden_size = spec.hidden[-1]
        self.spec = spec
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.output_stride = output_stride
        self.drop_rate = drop_rate
        self.init_weights()

    @jit_ignore
    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming``, as the authors start all networks, or ``trunc_normal``.

        Scales of BatchNorm start at 1, and at 0.5 in the networks that slimming prunes on CIFAR
        and in its VGGs.
        """
        init_layers(self, scheme, _kaiming)
        is_vgg = isinstance(self.spec, VggSpec)
        gamma = 0.5 if _starts_at_half(self.spec) else 1.0
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.constant_(module.weight, gamma)
                nn.init.zeros_(module.bias)
            elif is_vgg and isinstance(module, nn.Linear) and scheme == "kaiming":
                nn.init.normal_(module.weight, std=LINEAR_STD)
                nn.init.zeros_(module.bias)


def _kaiming(conv: nn.Conv2d) -> None:
    fan_out = conv.out_channels * math.prod(conv.kernel_size)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))


def _starts_at_half(spec: SmallSpec) -> bool:
    if isinstance(spec, VggSpec):
        return spec.head != "4096"
    return isinstance(spec, PreResNetSpec | DenseNetSpec)


def _body(spec: SmallSpec, in_chans: int, drop_path_rate: float) -> Body:
    match spec:
        case VggSpec():
            return families.vgg(spec, in_chans)
        case DenseNetSpec():
            return families.densenet(spec, in_chans)
        case ResNetSpec():
            blocks = sum(map(len, spec.inner))
            return families.resnet(spec, in_chans, iter(drop_path_rates(drop_path_rate, blocks)))
        case PreResNetSpec():
            blocks = sum(map(len, spec.inner))
            return families.preresnet(spec, in_chans, iter(drop_path_rates(drop_path_rate, blocks)))
        case PreActSpec():
            blocks = sum(map(len, spec.branches()))
            return families.preact50(spec, in_chans, iter(drop_path_rates(drop_path_rate, blocks)))
