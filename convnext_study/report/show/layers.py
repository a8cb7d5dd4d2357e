"""The contents of a `show` screen: layers, blocks and stages as lines to print (without torch)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from convnext_study.models.layer_specs import BlockLayers, Layer, StageLayers, list_layers
from convnext_study.roadmap.spec import NetSpec

# The stage whose blocks are shown: the longest one in every network of the paper.
SHOWN_STAGE = 2

# The parts of a network that can be shown, from image to logits.
TITLES = {
    "stem": "Stem",
    "stages": "Stages, with the MACs of all blocks",
    "downsample": "Between stages 2 and 3",
    "first": "Stage 3, first block",
    "block": "Stage 3, each later block",
    "head": "Head",
}
# The parts that best show what a field does; all other fields are shown by a block.
PARTS_OF_FIELD = {
    "depths": ("stages",),
    "width": ("stem", "stages", "block"),
    "stem": ("stem",),
    "stem_stride": ("stem",),
    "inverted": ("first", "block"),
    "spatial_first": ("first", "block"),
    "downsampling": ("stem", "downsample", "first", "head"),
}
_NAMES = {
    ("norm", "batch"): "batch norm",
    ("norm", "layer"): "layer norm",
    ("act", "relu"): "ReLU",
    ("act", "gelu"): "GELU",
    ("avgpool", ""): "average pool",
    ("scale", ""): "layer scale",
    ("grn", ""): "global response norm",
}


@dataclass(frozen=True)
class LayerLine:
    """A layer (or a stage) as printed: channels in and out, side of its output map, MACs."""

    name: str
    channels: str = ""
    side: int | None = None
    macs: int = 0


NOTHING = [LayerLine("(nothing)")]


def parts_of(fields: Iterable[str]) -> tuple[str, ...]:
    """Which parts of a network to show for a step that sets these fields."""
    wanted = {part for name in fields for part in PARTS_OF_FIELD.get(name, ("block",))}
    return tuple(part for part in TITLES if part in wanted)


def describe(spec: NetSpec, image_size: int, num_classes: int) -> dict[str, list[LayerLine]]:
    """Every part of a network, as lines, for one square image of that side."""
    network = list_layers(spec, num_classes=num_classes)
    parts: dict[str, list[LayerLine]] = {"stages": []}
    parts["stem"], side = _walk(network.stem, image_size)
    for index, stage in enumerate(network.stages):
        downsample, blocks, after = _stage(stage, side)
        macs = sum(line.macs for lines in (downsample, *blocks) for line in lines)
        name = f"stage {index + 1}: × {len(blocks)}"
        parts["stages"].append(LayerLine(name, str(spec.widths()[index]), after, macs))
        if index == SHOWN_STAGE:
            parts["downsample"] = downsample or NOTHING
            parts["first"] = blocks[0]
            parts["block"] = blocks[-1] if len(blocks) > 1 else NOTHING
        side = after
    parts["head"], _ = _walk(network.head, side)
    return parts


def _stage(stage: StageLayers, side: int) -> tuple[list[LayerLine], list[list[LayerLine]], int]:
    downsample, side = _walk(stage.downsample, side)
    blocks = []
    for block in stage.blocks:
        lines, side = _block(block, side)
        blocks.append(lines)
    return downsample, blocks, side


def _block(block: BlockLayers, side: int) -> tuple[list[LayerLine], int]:
    branch, after = _walk(block.branch, side)
    shortcut = [LayerLine("add the input")]
    if block.shortcut:
        inner, _ = _walk(block.shortcut, side, indent="  ")
        shortcut = [LayerLine("add a shortcut:"), *inner]
    tail, _ = _walk(block.post_act, after)
    return [*branch, *shortcut, *tail], after


def _walk(layers: Iterable[Layer], side: int, indent: str = "") -> tuple[list[LayerLine], int]:
    """Lines of consecutive layers, and the side of the last one's output map."""
    lines = []
    for layer in layers:
        side = layer.side_after(side)
        name = indent + _name(layer)
        if layer.kind in ("conv", "linear"):
            weights = layer.kernel**2 * (layer.c_in // layer.groups) * layer.out
            lines.append(LayerLine(name, f"{layer.c_in}→{layer.out}", side, weights * side**2))
        elif layer.kind in ("maxpool", "avgpool"):
            lines.append(LayerLine(name, str(layer.out), side))
        else:
            lines.append(LayerLine(name, str(layer.out)))
    return lines, side


def _name(layer: Layer) -> str:
    bias = " +b" if layer.bias else ""
    if layer.kind == "linear":
        return f"linear{bias}"
    if layer.kind not in ("conv", "maxpool"):
        return _NAMES[layer.kind, layer.variant]
    kind = "max pool"
    if layer.kind == "conv":
        kind = "dwconv" if layer.groups > 1 else "conv"
    stride = f" /{layer.stride}" if layer.stride > 1 else ""
    return f"{kind} {layer.kernel}x{layer.kernel}{stride}{bias}"
