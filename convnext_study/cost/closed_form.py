"""The cost of a spec by arithmetic, without torch and without the code that builds the network.

It restates the paper's section 2 from the spec alone, so that agreement with the other counters is
meaningful.
"""

from __future__ import annotations

from dataclasses import dataclass

from convnext_study.errors import RunFailed, UserError
from convnext_study.roadmap.spec import STAGES, NetSpec


class ImageTooSmall(UserError):
    """The network would reduce the image to nothing."""


class CountersDisagree(RunFailed):
    """Counters disagree on a network's cost; the message has all their counts."""


@dataclass(frozen=True)
class Cost:
    """Cost for one image, in raw units.

    Args:
        macs: multiply-accumulates of convolution and linear layers.
        params: parameters of all layers.
        activations: output elements of convolution and linear layers.
    """

    macs: int = 0
    params: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.activations + other.activations,
        )

    def __mul__(self, times: int) -> Cost:
        return Cost(self.macs * times, self.params * times, self.activations * times)


def closed_form(spec: NetSpec, image_size: int, num_classes: int = 1000) -> Cost:
    """Cost of a spec's network for one square RGB image with sides of ``image_size`` pixels.

    Raises ImageTooSmall for an image that the network would reduce to nothing.
    """
    maps = sides(spec, image_size)
    total = _stem(spec, image_size, maps[0])
    for stage in range(STAGES):
        total += _stage(spec, stage, maps[stage], maps[stage + 1])
    return total + _head(spec, num_classes)


def sides(spec: NetSpec, image_size: int) -> tuple[int, ...]:
    """Sides of the square maps after the stem and after each stage, in positions.

    Padded convolutions and pooling round odd sizes up; patches that do not overlap (patchify stem,
    2x2 downsampling) drop the remainder. Raises ImageTooSmall as `closed_form` does.
    """
    side = image_size
    isotropic = spec.layout == "isotropic"
    patch = spec.stem_stride * (4 if isotropic else 1)
    side = side // patch if spec.stem == "patchify" else -(-side // patch)
    lengths = [side, side]
    for _ in range(1, STAGES):
        if not isotropic:
            side = side // 2 if spec.downsampling == "separate" else -(-side // 2)
        lengths.append(side)
    if lengths[-1] < 1:
        raise ImageTooSmall(
            f"image size: {image_size} is too small for the strides of this network; use at least "
            f"{patch * (1 if isotropic else 2 ** (STAGES - 1))}"
        )
    return tuple(lengths)


def _conv(side: int, c_in: int, c_out: int, *, kernel: int = 1, bias: bool = False) -> Cost:
    """A convolution whose output is ``side`` by ``side``; a depthwise one has ``c_in`` of 1."""
    weights = kernel**2 * c_in * c_out
    return Cost(weights * side**2, weights + bias * c_out, c_out * side**2)


def _norm(channels: int) -> Cost:
    return Cost(params=2 * channels)


def _stem(spec: NetSpec, image_size: int, side: int) -> Cost:
    if spec.stem == "conv":
        # Half the image's side, or all of it without stride; pooling, if any, is free.
        without_stride = spec.stem_stride == 1 and spec.layout == "staged"
        conv_side = image_size if without_stride else -(-image_size // 2)
        bias = spec.norm != "batch"
        return _conv(conv_side, 3, spec.width, kernel=7, bias=bias) + _norm(spec.width)
    isotropic = spec.layout == "isotropic"  # patches of 16 in the paper, and no norm
    normed = spec.downsampling == "separate" and not isotropic
    patch = spec.stem_stride * (4 if isotropic else 1)
    conv = _conv(side, 3, spec.width, kernel=patch, bias=not normed or spec.norm != "batch")
    return conv + _norm(spec.width) if normed else conv


def _stage(spec: NetSpec, stage: int, before: int, after: int) -> Cost:
    growth = 1 if spec.layout == "isotropic" else 2
    out = spec.width * growth**stage * (1 if spec.inverted else spec.expansion)
    c_in = spec.width if stage == 0 else out // growth
    total = Cost()
    if spec.downsampling == "separate" and growth == 2 and stage > 0:
        total += _norm(c_in) + _conv(after, c_in, out, kernel=2, bias=True)
        c_in, before = out, after
    first = _block(spec, stage, c_in, before, after)
    return total + first + _block(spec, stage, out, after, after) * (spec.depths[stage] - 1)


def _block(spec: NetSpec, stage: int, c_in: int, before: int, after: int) -> Cost:
    width = spec.width * (1 if spec.layout == "isotropic" else 2**stage)
    hidden = width * spec.expansion if spec.inverted else width
    out = width if spec.inverted else width * spec.expansion
    spatial = c_in if spec.spatial_first else hidden
    spatial_bias = spec.norm != "batch"
    pointwise_bias = spec.norm != "batch" or spec.norms != 3
    narrow_side = after if spec.spatial_first else before

    total = _conv(narrow_side, c_in, hidden, bias=pointwise_bias)
    c_in_per_group = 1 if spec.depthwise else spatial
    total += _conv(after, c_in_per_group, spatial, kernel=spec.kernel, bias=spatial_bias)
    total += _conv(after, hidden, out, bias=pointwise_bias)
    total += _norm(spatial)
    if spec.norms == 3:
        total += _norm(hidden) + _norm(out)
    if c_in != out:  # the shortcut; a stride always comes with more channels
        total += _conv(after, c_in, out, bias=spec.norm != "batch") + _norm(out)
    if spec.layer_scale is not None:
        total += Cost(params=out)
    if spec.grn:
        total += Cost(params=2 * hidden)
    return total


def _head(spec: NetSpec, num_classes: int) -> Cost:
    widest = spec.width if spec.layout == "isotropic" else spec.width * 2 ** (STAGES - 1)
    channels = widest * (1 if spec.inverted else spec.expansion)
    linear = _conv(1, channels, num_classes, bias=True) if num_classes else Cost()
    return linear + _norm(channels) if spec.downsampling == "separate" else linear
