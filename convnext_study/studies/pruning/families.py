"""The networks that the specs describe, with the interface of timm's models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from convnext_study.models.blocks import Head, Stage, drop_path_rates, jit_ignore
from convnext_study.models.layers import init_layers
from convnext_study.models.timm_model import TimmModel
from convnext_study.studies.pruning import blocks
from convnext_study.studies.pruning import spec as specs
from convnext_study.studies.pruning.spec import Spec, count, indices

BuiltStage: TypeAlias = tuple[Stage, int, int]  # with its channels and reduction
LINEAR_STD = 0.01  # of a VGG's linear layers
EXPANSION = 4  # of a bottleneck


def make_network(spec: Spec, **kwargs: Any) -> nn.Module:
    """The network of a spec; ``kwargs`` are those of `PruningNet` or timm's ``ResNet``."""
    build: Any = timm_resnet if spec.is_timms else PruningNet
    return build(spec, **kwargs)  # type: ignore[no-any-return]


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> nn.Module:
    """The network of a record: ``args`` are a spec's fields and its ``family``.

    Raises SpecError for a spec that no network can have.
    """
    net: Any = make_network(
        specs.from_dict(args), num_classes=num_classes, drop_path_rate=drop_path
    )
    if isinstance(net, PruningNet):
        net.init_weights(init)
    elif init == "trunc_normal":  # else it keeps torchvision's initialisation
        init_layers(net, init)
    return net  # type: ignore[no-any-return]


def refilled(net: Any, spec: Spec, state: Mapping[str, Tensor]) -> nn.Module:
    """The network of ``spec`` with the weights of ``state`` and the classes, device, type and mode
    of ``net``."""
    shape = {"num_classes": net.num_classes, "in_chans": getattr(net, "in_chans", 3)}
    weight, small = next(net.parameters()), make_network(spec, **shape)
    small.to(weight.device, weight.dtype).train(net.training)
    small.load_state_dict({name: state[name] for name in small.state_dict()})
    return small


class PruningNet(TimmModel):
    """A network of this study that neither timm nor torchvision has.

    Arguments are those of `RoadmapNet`, but ``output_stride`` is always 32, as there is no dilated
    form, and only residual blocks have stochastic depth. Raises ValueError, one line, for an
    argument that the network cannot have.
    """

    def __init__(
        self,
        spec: specs.SmallSpec,
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if output_stride != 32:
            raise ValueError(f"output_stride: {output_stride}; a {spec.family} supports only 32")
        if drop_path_rate and isinstance(spec, specs.VggSpec | specs.DenseNetSpec):
            raise ValueError(f"drop_path_rate: a {spec.family} has no residual branches; use 0")
        stem = _stem(spec, in_chans)
        if isinstance(spec, specs.VggSpec | specs.DenseNetSpec):
            built = _vgg(spec) if isinstance(spec, specs.VggSpec) else _densenet(spec)
        else:
            built = _residual(spec, drop_path_rate)
        stages, channels, reductions = zip(*built, strict=True)
        head = (
            blocks.VggHead(spec, channels[-1], num_classes, global_pool, drop_rate)
            if isinstance(spec, specs.VggSpec)
            else Head(channels[-1], num_classes, global_pool, drop_rate)
        )
        super().__init__(
            spec,
            stem,
            stages,
            head,
            zip(channels, reductions, strict=True),
            num_classes=num_classes,
            in_chans=in_chans,
            output_stride=output_stride,
            drop_rate=drop_rate,
        )
        if isinstance(spec, specs.VggSpec) and spec.hidden:
            self.head_hidden_size = spec.hidden[-1]

    @jit_ignore
    def init_weights(self, scheme: str = "kaiming") -> None:
        """Initialise by ``kaiming``, as the authors do all networks, or by ``trunc_normal``.

        Scales of BatchNorm start at 1, but at 0.5 in slimming's networks for CIFAR and its VGGs.
        """
        init_layers(self, scheme)
        spec, is_vgg = self.spec, isinstance(self.spec, specs.VggSpec)
        at_half = isinstance(spec, specs.VggSpec | specs.PreResNetSpec | specs.DenseNetSpec)
        at_half = at_half and getattr(spec, "head", "") != "4096"
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.5 if at_half else 1.0)
                nn.init.zeros_(module.bias)
            elif is_vgg and isinstance(module, nn.Linear) and scheme == "kaiming":
                nn.init.normal_(module.weight, std=LINEAR_STD)
                nn.init.zeros_(module.bias)


def _stem(spec: specs.SmallSpec, in_chans: int) -> nn.Sequential:
    if isinstance(spec, specs.VggSpec):
        return _conv_norm_act(spec, in_chans, int(spec.widths[0]))
    width = 2 * spec.growth if isinstance(spec, specs.DenseNetSpec) else spec.widths[0]
    is_large = isinstance(spec, specs.PreActSpec)
    geometry = (7, 2, 3) if is_large else (3, 1, 1)  # kernel, stride, padding
    is_normed = is_large or isinstance(spec, specs.ResNetSpec)
    return blocks.named(
        conv=nn.Conv2d(in_chans, width, *geometry, bias=False),
        norm=nn.BatchNorm2d(width) if is_normed else None,
        act=nn.ReLU(inplace=True) if is_normed else None,
        pool=nn.MaxPool2d(3, 2, padding=1) if is_large else None,
    )


def _vgg(spec: specs.VggSpec) -> Iterator[BuiltStage]:
    """One stage per map size; the first convolution is the stem."""
    c_in = int(spec.widths[0])
    for index, widths in enumerate(spec.groups()):
        layers = []
        for width in widths:
            layers.append(_conv_norm_act(spec, c_in, width))
            c_in = width
        if layers:
            yield Stage(layers, nn.MaxPool2d(2) if index else None), c_in, 2**index


def _conv_norm_act(spec: specs.VggSpec, c_in: int, c_out: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=spec.conv_bias)
    norm = nn.BatchNorm2d(c_out) if spec.batchnorm else None
    return blocks.named(conv=conv, norm=norm, act=nn.ReLU(inplace=True))


def _residual(
    spec: specs.ResNetSpec | specs.PreResNetSpec | specs.PreActSpec, drop_path_rate: float
) -> Iterator[BuiltStage]:
    """Every stage but the first halves the map; in pre-activation networks a norm ends the last."""
    stages: Any = spec.branches() if isinstance(spec, specs.PreActSpec) else spec.inner
    expansion = 1 if isinstance(spec, specs.ResNetSpec) else EXPANSION
    rates = iter(drop_path_rates(drop_path_rate, sum(map(len, stages))))
    c_in = spec.widths[0]
    for index, (hidden, width) in enumerate(zip(stages, spec.widths, strict=True)):
        layers, out = [], expansion * width
        for number, block in enumerate(hidden):
            stride = 2 if index and number == 0 else 1
            layers.append(_block(spec, block, (c_in, out), stride, next(rates)))
            c_in = out
        tail, channels = None, c_in
        if index == len(stages) - 1 and not isinstance(spec, specs.ResNetSpec):
            last = spec.last if isinstance(spec, specs.PreResNetSpec) else c_in
            tail, channels = blocks.norm_select_act(last, c_in), count(last)
        yield Stage(layers, tail=tail), channels, spec.stem_reduction * 2**index


def _block(spec: Any, block: Any, widths: tuple[int, int], stride: int, rate: float) -> nn.Module:
    c_in, out = widths
    match spec:
        case specs.ResNetSpec():
            return blocks.BasicBlock(c_in, block, out, stride, rate)
        case specs.PreResNetSpec():
            return blocks.PreBottleneck(c_in, block, out, stride, rate)
        case specs.PreActSpec() if block:
            hidden = (c_in, out // EXPANSION, out // EXPANSION)
            return blocks.PreBottleneck(c_in, hidden, out, stride, rate, from_act=True)
    return blocks.BranchlessBlock(c_in, out, stride)


def _densenet(spec: specs.DenseNetSpec) -> Iterator[BuiltStage]:
    """Dense blocks with a transition before each but the first, and a norm after the last."""
    c_in = 2 * spec.growth
    for index, inner in enumerate(spec.inner):
        downsample, layers = None, []
        if index:
            selection, before = spec.transitions[index - 1], c_in
            c_in = before // spec.compression
            conv, pool = blocks.conv1x1(count(selection), c_in), nn.AvgPool2d(2, ceil_mode=True)
            downsample = blocks.norm_select_act(selection, before, conv=conv, pool=pool)
        for hidden in inner:
            layers.append(blocks.DenseLayer(c_in, hidden, spec.growth))
            c_in += spec.growth
        is_last = index == len(spec.inner) - 1
        tail = blocks.norm_select_act(spec.last, c_in) if is_last else None
        yield Stage(layers, downsample, tail), count(spec.last) if is_last else c_in, 2**index


def timm_resnet(
    spec: specs.ImageNetBasicSpec | specs.BottleneckSpec,
    *,
    zero_init_last: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """timm's ResNet with this spec's widths; ``kwargs`` are those of timm's ``ResNet``.

    The last norm of a branch starts at 1 unless ``zero_init_last``, as in torchvision. Weights of
    torchvision and timm fit the networks that are not narrowed, except for biased shortcuts.
    """
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    is_basic = isinstance(spec, specs.ImageNetBasicSpec)
    kind = BasicBlock if is_basic else Bottleneck
    depths = tuple(map(len, spec.inner))
    net: Any = ResNet(kind, depths, zero_init_last=zero_init_last, **kwargs)
    net.spec = spec
    for index, stage in enumerate(spec.inner, start=1):
        for block, inner in zip(getattr(net, f"layer{index}"), stage, strict=True):
            _narrow(block, (block.conv1.in_channels, inner) if is_basic else inner)
            if getattr(spec, "shortcut_bias", False) and block.downsample is not None:
                conv = block.downsample[0]
                block.downsample[0] = _conv(conv, conv.in_channels, conv.out_channels, bias=True)
    net.init_weights(zero_init_last=zero_init_last)
    return net  # type: ignore[no-any-return]


def _narrow(block: Any, inner: Any) -> None:
    """Let a block of timm's read the selected channels, and give all its convolutions but the last,
    with their norms, these widths."""
    selection, *widths = inner
    c_in = count(selection)
    for number, width in enumerate((*widths, None), start=1):
        conv = getattr(block, f"conv{number}")
        c_out = width or conv.out_channels
        reads_all = number > 1 or indices(selection) == tuple(range(conv.in_channels))
        narrow = (
            _conv(conv, c_in, c_out)
            if reads_all
            else blocks.SelectedConv2d(indices(selection), c_out)
        )
        setattr(block, f"conv{number}", narrow)
        if width is not None:
            setattr(block, f"bn{number}", nn.BatchNorm2d(width))
        c_in = c_out


def _conv(like: Any, c_in: int, c_out: int, bias: bool = False) -> nn.Conv2d:
    """A convolution with the same geometry and other widths."""
    geometry = (like.kernel_size, like.stride, like.padding, like.dilation)
    return nn.Conv2d(c_in, c_out, *geometry, bias=bias)
