"""The layers of a network, listed as data: what `models/roadmap_net.py` builds and `show` prints
(no torch here).

What the paper leaves open is decided here, once:

- *One activation* is directly before the block's last pointwise convolution, and *one norm*
  directly after its spatial convolution. With the spatial convolution first, that is ConvNeXt's
  block; with it in the middle, the same rule applies.
- *Fewer norms* and *fewer activations* apply to a block's branch; a strided shortcut keeps its
  norm.
- *Separate downsampling* adds a norm after a patchify stem. The convolutional stem has its own.
- A convolution has a bias unless a BatchNorm follows it directly.
- Layer scale, if enabled, multiplies the branch's output just before the addition.
- GRN, if enabled, is directly before the block's last pointwise convolution.
- An isotropic network has no norm after a patchify stem, as in the released code: that norm comes
  with those before downsampling, of which it has none.
"""

from __future__ import annotations

from dataclasses import dataclass

from convnext_study.roadmap.spec import NetSpec


@dataclass(frozen=True)
class Layer:
    """One layer. ``kind`` is conv, linear, norm, act, grn, maxpool, avgpool or scale.

    ``c_in`` and ``out`` are its input and output channels; ``same`` keeps the output as large as
    the input, for an even kernel without stride.
    """

    name: str
    kind: str
    c_in: int
    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    bias: bool = False
    same: bool = False
    variant: str = ""  # which norm or activation

    def side_after(self, side: int) -> int:
        """Side of the layer's square output map, given that of its input."""
        if self.kind in ("avgpool", "linear"):
            return 1
        if self.kind not in ("conv", "maxpool"):
            return side
        # Odd kernels are padded and round up; patches drop the remainder.
        return -(-side // self.stride) if self.kernel % 2 else side // self.stride


@dataclass(frozen=True)
class BlockLayers:
    """A residual block: ``tail(branch(x) + shortcut(x))``."""

    branch: tuple[Layer, ...]
    shortcut: tuple[Layer, ...]  # empty: identity
    post_act: tuple[Layer, ...]  # the activation after the addition, if any


@dataclass(frozen=True)
class StageLayers:
    """The layers of a stage: downsampling, possibly empty, and blocks."""

    downsample: tuple[Layer, ...]
    blocks: tuple[BlockLayers, ...]


@dataclass(frozen=True)
class NetworkLayers:
    """All layers of a network, in order."""

    stem: tuple[Layer, ...]
    stages: tuple[StageLayers, ...]
    head: tuple[Layer, ...]


def list_layers(
    spec: NetSpec, *, in_chans: int = 3, num_classes: int = 1000, output_stride: int = 32
) -> NetworkLayers:
    """All layers of the network, from image to logits.

    A smaller ``output_stride`` turns the last strides into dilation, as timm's networks do.
    """
    stages: list[StageLayers] = []
    channels, reduction, dilation = spec.width, spec.stem_reduction(), 1
    for index, depth in enumerate(spec.depths):
        downsamples = index > 0 and spec.layout == "staged"
        stride, first_dilation = 2 if downsamples else 1, dilation
        if stride == 2 and reduction >= output_stride:
            stride, dilation = 1, dilation * 2
        reduction *= stride
        stages.append(_stage(spec, channels, depth, index, stride, (first_dilation, dilation)))
        channels = spec.widths()[index]
    return NetworkLayers(_stem(spec, in_chans), tuple(stages), _head(spec, channels, num_classes))


def _norm(spec: NetSpec, name: str, channels: int) -> Layer:
    return Layer(name, "norm", channels, channels, variant=spec.norm)


def _act(spec: NetSpec, name: str, channels: int) -> Layer:
    return Layer(name, "act", channels, channels, variant=spec.activation)


def _stem(spec: NetSpec, in_chans: int) -> tuple[Layer, ...]:
    width, stride = spec.width, spec.stem_reduction()
    norm = _norm(spec, "norm", width)
    if spec.stem == "patchify":
        normed = spec.downsampling == "separate" and spec.layout == "staged"
        bias = not (normed and spec.norm == "batch")
        conv = Layer("conv", "conv", in_chans, width, kernel=stride, stride=stride, bias=bias)
        return (conv, norm) if normed else (conv,)
    # ResNet's: the convolution has the first stride of 2, the pooling the rest.
    conv = Layer(
        "conv", "conv", in_chans, width, 7, stride=min(stride, 2), bias=spec.norm != "batch"
    )
    layers = (conv, norm, _act(spec, "act", width))
    rest = stride // 2
    pool = Layer("pool", "maxpool", width, width, kernel=rest + 1, stride=rest)
    return (*layers, pool) if rest > 1 else layers


def _stage(
    spec: NetSpec,
    c_in: int,
    depth: int,
    index: int,
    stride: int,
    dilations: tuple[int, int],
) -> StageLayers:
    first, later = dilations
    width, out = spec.stage_width(index), spec.widths()[index]
    downsample: tuple[Layer, ...] = ()
    if spec.downsampling == "separate" and spec.layout == "staged" and index > 0:
        # If the stride became dilation the kernel stays 2x2, so that weights still fit.
        conv = Layer(
            "conv", "conv", c_in, out, 2, stride, dilation=first, bias=True, same=stride == 1
        )
        downsample = (_norm(spec, "norm", c_in), conv)
        c_in, stride, first = out, 1, later
    blocks = [_block(spec, c_in, width, out, stride, first)]
    blocks += [_block(spec, out, width, out, 1, later) for _ in range(depth - 1)]
    return StageLayers(downsample, tuple(blocks))


def _block(
    spec: NetSpec, c_in: int, width: int, out: int, stride: int, dilation: int
) -> BlockLayers:
    hidden = width * spec.expansion if spec.inverted else width
    spatial_width = c_in if spec.spatial_first else hidden
    convs = [
        Layer("pw1", "conv", c_in, hidden),
        Layer(
            "spatial",
            "conv",
            spatial_width,
            spatial_width,
            kernel=spec.kernel,
            stride=stride,
            groups=spatial_width if spec.depthwise else 1,
            dilation=dilation,
        ),
        Layer("pw2", "conv", hidden, out),
    ]
    if spec.spatial_first:
        convs[0], convs[1] = convs[1], convs[0]
    post_act = (_act(spec, "act", out),) if spec.activations == 3 else ()
    return BlockLayers(_branch(spec, convs, out), _shortcut(spec, c_in, out, stride), post_act)


def _branch(spec: NetSpec, convs: list[Layer], out: int) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for position, conv in enumerate(convs):
        normed = spec.norms == 3 or conv.name == "spatial"
        # The third of three activations is after the addition; a single one is before pw2.
        active = position < 2 if spec.activations == 3 else position == 1
        bias = not (normed and spec.norm == "batch")
        if spec.grn and conv.name == "pw2":
            layers.append(Layer("grn", "grn", conv.c_in, conv.c_in))
        layers.append(Layer(**{**vars(conv), "bias": bias}))
        if normed:
            layers.append(_norm(spec, f"norm_{conv.name}", conv.out))
        if active:
            layers.append(_act(spec, f"act_{conv.name}", conv.out))
    if spec.layer_scale is not None:
        layers.append(Layer("scale", "scale", out, out))
    return tuple(layers)


def _shortcut(spec: NetSpec, c_in: int, out: int, stride: int) -> tuple[Layer, ...]:
    if c_in == out and stride == 1:
        return ()
    conv = Layer("conv", "conv", c_in, out, stride=stride, bias=spec.norm != "batch")
    return (conv, _norm(spec, "norm", out))


def _head(spec: NetSpec, channels: int, num_classes: int) -> tuple[Layer, ...]:
    pool = Layer("pool", "avgpool", channels, channels)
    fc = Layer("fc", "linear", channels, num_classes, bias=True)
    if spec.downsampling == "separate":
        return (pool, _norm(spec, "norm", channels), fc)
    return (pool, fc)
