"""The cost of a spec by pencil and paper: no torch, and none of the code that builds the network.

It restates the paper's section 2 from the spec alone, so that agreement with the other counters
means something.
"""

from __future__ import annotations

from convnext_study.cost.cost import Cost, ImageTooSmall
from convnext_study.roadmap.spec import STAGES, NetSpec


def closed_form(spec: NetSpec, image_size: int, num_classes: int = 1000) -> Cost:
    """Cost of a spec's network for one square RGB image with sides of ``image_size`` pixels.

    Raises ImageTooSmall for an image that the network would shrink to nothing.
    """
    maps = sides(spec, image_size)
    total = _stem(spec, image_size, maps[0])
    for stage in range(STAGES):
        total += _stage(spec, stage, maps[stage], maps[stage + 1])
    return total + _head(spec, num_classes)


def sides(spec: NetSpec, image_size: int) -> tuple[int, ...]:
    """Sides of the square maps after the stem and after each stage, in positions.

    Padded convolutions and pooling round up where a size is odd; patches that do not overlap
    (patchify stem, 2x2 downsampling) drop the rest. Raises ImageTooSmall as `closed_form` does.
    """
    side = image_size
    isotropic = spec.layout == "isotropic"
    patch = spec.stem_stride * (4 if isotropic else 1)
    side = side // patch if spec.stem == "patchify" else -(-side // patch)
    found = [side, side]
    for _ in range(1, STAGES):
        if not isotropic:
            side = side // 2 if spec.downsampling == "separate" else -(-side // 2)
        found.append(side)
    if found[-1] < 1:
        raise ImageTooSmall(
            f"image size: {image_size} is too small, the network shrinks it to nothing; "
            f"{patch * (1 if isotropic else 2 ** (STAGES - 1))} is enough"
        )
    return tuple(found)


def _conv(side: int, c_in: int, c_out: int, *, kernel: int = 1, bias: bool = False) -> Cost:
    """A dense convolution whose output is ``side`` by ``side``."""
    weights = kernel**2 * c_in * c_out
    return Cost(weights * side**2, weights + bias * c_out, c_out * side**2)


def _depthwise(side: int, channels: int, *, kernel: int, bias: bool) -> Cost:
    weights = kernel**2 * channels
    return Cost(weights * side**2, weights + bias * channels, channels * side**2)


def _norm(channels: int) -> Cost:
    return Cost(params=2 * channels)


def _stem(spec: NetSpec, image_size: int, side: int) -> Cost:
    if spec.stem == "conv":
        # Half the image, or all of it for a stem without stride; pooling, if any, is free.
        whole = spec.stem_stride == 1 and spec.layout == "staged"
        conv_side = image_size if whole else -(-image_size // 2)
        bias = spec.norm != "batch"
        return _conv(conv_side, 3, spec.width, kernel=7, bias=bias) + _norm(spec.width)
    if spec.layout == "isotropic":  # patches of 16 in the paper, and no norm
        return _conv(side, 3, spec.width, kernel=4 * spec.stem_stride, bias=True)
    if spec.downsampling == "separate":
        bias = spec.norm != "batch"
        conv = _conv(side, 3, spec.width, kernel=spec.stem_stride, bias=bias)
        return conv + _norm(spec.width)
    return _conv(side, 3, spec.width, kernel=spec.stem_stride, bias=True)


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
    if spec.depthwise:
        total += _depthwise(after, spatial, kernel=spec.kernel, bias=spatial_bias)
    else:
        total += _conv(after, spatial, spatial, kernel=spec.kernel, bias=spatial_bias)
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
