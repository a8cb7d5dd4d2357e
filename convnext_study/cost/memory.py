"""What a training step keeps of one image until the backward pass: no torch, from the layers' list.

Counted are the tensors that autograd saves: the input of every convolution, linear layer, norm,
GELU and scale, and the output of every ReLU, which overwrites its input. A tensor that several of
them need is one. Weights, their gradients and moments are counted apart; what libraries take for
a moment is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convnext_study.cost.closed_form import sides
from convnext_study.models.layer_specs import BlockLayers, Layer, NetworkLayers, list_layers
from convnext_study.roadmap.spec import NetSpec

FULL, HALF = 4, 2  # bytes of a number


@dataclass
class _Map:
    """A tensor of ``side`` by ``side`` by ``channels``, and whether it is counted already."""

    side: int
    channels: int
    size: int
    saved: bool = False


class _Kept:
    def __init__(self, size: int) -> None:
        self.size, self.bytes = size, 0

    def save(self, tensor: _Map, size: int = 0) -> None:
        """Count a tensor, once; in another type it is another."""
        if size and size != tensor.size:
            self.bytes += tensor.side**2 * tensor.channels * size
        elif not tensor.saved:
            tensor.saved = True
            self.bytes += tensor.side**2 * tensor.channels * tensor.size

    def run(self, layers: Sequence[Layer], x: _Map) -> _Map:
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def block(self, block: BlockLayers, x: _Map) -> _Map:
        out = self.run(block.branch, x)
        self.run(block.shortcut, x)
        # In half precision the sum is of the branch's type only where the shortcut is too.
        return self.run(block.post_act, _Map(out.side, out.channels, max(out.size, x.size)))

    def _layer(self, layer: Layer, x: _Map) -> _Map:
        if layer.kind == "act" and layer.variant != "gelu":
            self.save(x)  # the output, which is in the input's place
            return x
        if layer.kind == "norm":
            size = FULL if layer.variant == "layer" else x.size  # autocast has LayerNorm in float32
            self.save(x, size)
            return _Map(x.side, x.channels, size)
        if layer.kind == "grn":
            self.bytes += 3 * x.side**2 * x.channels * x.size  # the norm, two products
        if layer.kind in ("conv", "linear"):
            self.save(x, self.size)
            return _Map(layer.side_after(x.side), layer.out, self.size)
        side = layer.side_after(x.side)
        if layer.kind != "avgpool":
            self.save(x)
        if layer.kind == "maxpool":
            self.bytes += side**2 * x.channels * 8  # the places of the maxima
        return _Map(side, x.channels, x.size)


def saved_bytes(spec: NetSpec, image_size: int, *, half: bool = False) -> int:
    """Bytes that a training step keeps of one image of ``image_size`` pixels a side.

    ``half`` is for bf16 and fp16. Raises ImageTooSmall as `closed_form` does.
    """
    sides(spec, image_size)
    kept = _Kept(HALF if half else FULL)
    layers: NetworkLayers = list_layers(spec)
    x = kept.run(layers.stem, _Map(image_size, 3, FULL))
    for stage in layers.stages:
        x = kept.run(stage.downsample, x)
        for block in stage.blocks:
            x = kept.block(block, x)
    kept.run(layers.head, x)
    return kept.bytes


def state_bytes(params: int, optimizer: str, *, averaged: bool = False) -> int:
    """Bytes of weights, gradients and moments, and of the weights' average where there is one."""
    return FULL * params * (2 + {"adamw": 2, "sgd": 1}[optimizer] + averaged)
