"""Stems, stages and heads of the families for small images, and of VGG.

A reduction is by how much the image has shrunk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from convnext_study.studies.pruning.networks import parts
from convnext_study.studies.pruning.spec_fields import count
from convnext_study.studies.pruning.specs import (
    DenseNetSpec,
    PreActSpec,
    PreResNetSpec,
    ResNetSpec,
    VggSpec,
)

EXPANSION = 4  # of a bottleneck


@dataclass
class Body:
    """What `PruningNet` puts together: ``channels`` and ``reductions`` are those of the stages."""

    stem: nn.Module
    stages: list[parts.Stage]
    channels: list[int]
    reductions: list[int]


def vgg(spec: VggSpec, in_chans: int) -> Body:
    """The first convolution as stem, then a stage for each size of the map."""
    body = Body(_conv_norm_act(spec, in_chans, int(spec.widths[0])), [], [], [])
    c_in, reduction = int(spec.widths[0]), 1
    for place, widths in enumerate(spec.groups()):
        if widths:
            blocks = []
            for width in widths:
                blocks.append(_conv_norm_act(spec, c_in, width))
                c_in = width
            pool = nn.MaxPool2d(2) if place else None
            body.stages.append(parts.Stage(blocks, pool))
            body.channels.append(c_in)
            body.reductions.append(reduction)
        reduction *= 2
    return body


def _conv_norm_act(spec: VggSpec, c_in: int, c_out: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(c_in, c_out, 3, padding=1, bias=spec.conv_bias)
    if spec.batchnorm:
        layers["norm"] = nn.BatchNorm2d(c_out)
    layers["act"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def resnet(spec: ResNetSpec, in_chans: int, rates: Iterator[float]) -> Body:
    """Basic blocks; every stage but the first halves the map."""
    c_in = spec.widths[0]
    stem = nn.Sequential(
        OrderedDict(
            conv=parts.conv3x3(in_chans, c_in),
            norm=nn.BatchNorm2d(c_in),
            act=nn.ReLU(inplace=True),
        )
    )
    body = Body(stem, [], [], [])
    for index, (inner, out) in enumerate(zip(spec.inner, spec.widths, strict=True)):
        blocks = []
        for place, width in enumerate(inner):
            stride = 2 if index and place == 0 else 1
            blocks.append(parts.BasicBlock(c_in, width, out, stride, next(rates)))
            c_in = out
        _add(body, parts.Stage(blocks), c_in, 2**index)
    return body


def preresnet(spec: PreResNetSpec, in_chans: int, rates: Iterator[float]) -> Body:
    """Pre-activation bottlenecks; a norm ends the last stage."""
    c_in = spec.widths[0]
    body = Body(nn.Sequential(OrderedDict(conv=parts.conv3x3(in_chans, c_in))), [], [], [])
    for index, (inner, width) in enumerate(zip(spec.inner, spec.widths, strict=True)):
        blocks, out = [], EXPANSION * width
        for place, block in enumerate(inner):
            stride = 2 if index and place == 0 else 1
            block = (block[0], block[1], block[2])
            blocks.append(parts.PreBottleneck(c_in, block, out, stride, "x", next(rates)))
            c_in = out
        ends = index == len(spec.widths) - 1
        tail = parts.norm_select_act(spec.last, c_in) if ends else None
        _add(body, parts.Stage(blocks, tail=tail), count(spec.last) if ends else c_in, 2**index)
    return body


def preact50(spec: PreActSpec, in_chans: int, rates: Iterator[float]) -> Body:
    """As `preresnet`, with the stem of a ResNet for ImageNet and blocks without a branch."""
    c_in, first = spec.widths[0], 4 if spec.stem == "imagenet" else 1
    body = Body(_preact_stem(in_chans, c_in, spec.stem), [], [], [])
    for index, (branches, width) in enumerate(zip(spec.branches(), spec.widths, strict=True)):
        blocks: list[nn.Module] = []
        out = EXPANSION * width
        for place, has_branch in enumerate(branches):
            stride, rate = (2 if index and place == 0 else 1), next(rates)
            inner = (c_in, width, width)
            blocks.append(
                parts.PreBottleneck(c_in, inner, out, stride, "act", rate)
                if has_branch
                else parts.BranchlessBlock(c_in, out, stride)
            )
            c_in = out
        ends = index == len(spec.widths) - 1
        tail = parts.norm_select_act(c_in, c_in) if ends else None
        _add(body, parts.Stage(blocks, tail=tail), c_in, first * 2**index)
    return body


def _preact_stem(in_chans: int, width: int, kind: str) -> nn.Sequential:
    if kind == "cifar":
        return nn.Sequential(OrderedDict(conv=parts.conv3x3(in_chans, width)))
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_chans, width, 7, 2, padding=3, bias=False),
            norm=nn.BatchNorm2d(width),
            act=nn.ReLU(inplace=True),
            pool=nn.MaxPool2d(3, 2, padding=1),
        )
    )


def densenet(spec: DenseNetSpec, in_chans: int) -> Body:
    """Dense blocks with a transition before each but the first; a norm ends the last."""
    c_in = 2 * spec.growth
    body = Body(nn.Sequential(OrderedDict(conv=parts.conv3x3(in_chans, c_in))), [], [], [])
    for index, (layers, end) in enumerate(zip(spec.inner, spec.streams(), strict=True)):
        downsample = None
        if index:
            read, before = spec.transitions[index - 1], c_in
            c_in = before // spec.compression
            downsample = parts.norm_select_act(read, before)
            downsample.add_module("conv", nn.Conv2d(count(read), c_in, 1, bias=False))
            downsample.add_module("pool", nn.AvgPool2d(2, ceil_mode=True))
        blocks = []
        for inner in layers:
            blocks.append(parts.DenseLayer(c_in, inner, spec.growth))
            c_in += spec.growth
        ends = index == len(spec.inner) - 1
        tail = parts.norm_select_act(spec.last, end) if ends else None
        stage = parts.Stage(blocks, downsample, tail)
        _add(body, stage, count(spec.last) if ends else c_in, 2**index)
    return body


def _add(body: Body, stage: parts.Stage, channels: int, reduction: int) -> None:
    body.stages.append(stage)
    body.channels.append(channels)
    body.reductions.append(reduction)
