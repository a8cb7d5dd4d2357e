"""Memory that a training step keeps per image until the backward pass, from the layers (no torch).

It counts the tensors that autograd saves: the input of every convolution, linear layer, norm, GELU
and scale, and the output of every ReLU, which overwrites its input. A tensor needed by several of
them counts once. Weights, their gradients and moments are counted separately; temporary buffers of
libraries are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convnext_study.cost.closed_form import sides
from convnext_study.models.layer_specs import BlockLayers, Layer, NetworkLayers, list_layers
from convnext_study.roadmap.spec import NetSpec

FULL, HALF = 4, 2  # bytes per number


@dataclass
class _Map:
    """A tensor of ``side`` by ``side`` by ``channels``, and whether it was counted already."""

    side: int
    channels: int
    size: int
    saved: bool = False


class _SavedBytes:
    def __init__(self, size: int) -> None:
        self.size, self.bytes = size, 0

    def save(self, tensor: _Map, size: int = 0) -> None:
        """Count a tensor once; a copy in another type counts separately."""
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
        # In half precision the sum has the branch's type only if the shortcut has it too.
        return self.run(block.post_act, _Map(out.side, out.channels, max(out.size, x.size)))

    def _layer(self, layer: Layer, x: _Map) -> _Map:
        if layer.kind == "act" and layer.variant != "gelu":
            self.save(x)  # the output, which overwrites the input
            return x
        if layer.kind == "norm":
            # Autocast runs LayerNorm in float32.
            size = FULL if layer.variant == "layer" else x.size
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
            self.bytes += side**2 * x.channels * 8  # the indices of the maxima
        return _Map(side, x.channels, x.size)


def saved_bytes(spec: NetSpec, image_size: int, *, half: bool = False) -> int:
    """Bytes that a training step keeps for one image with sides of ``image_size`` pixels.

    ``half`` is for bf16 and fp16. Raises ImageTooSmall as `closed_form` does.
    """
    sides(spec, image_size)
    counter = _SavedBytes(HALF if half else FULL)
    layers: NetworkLayers = list_layers(spec)
    x = counter.run(layers.stem, _Map(image_size, 3, FULL))
    for stage in layers.stages:
        x = counter.run(stage.downsample, x)
        for block in stage.blocks:
            x = counter.block(block, x)
    counter.run(layers.head, x)
    return counter.bytes


def state_bytes(params: int, optimizer: str, *, averaged: bool = False) -> int:
    """Bytes of weights, gradients and moments, and of the averaged weights if there are any."""
    return FULL * params * (2 + {"adamw": 2, "sgd": 1}[optimizer] + averaged)
