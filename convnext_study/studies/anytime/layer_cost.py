"""The cost of each exit, dense and with masks, by the authors' rule.

One multiply-accumulate counts 1; the layers are those of `cost.count`. A masked convolution costs
``int(dense * rho) + int((1 - rho) * rho * c_out * 49 * h * w)``, with rho the mask's mean; the
second term is the fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convnext_study.cost.counter import blank_image, copy_on, skip_norms
from convnext_study.studies.anytime.masks import FILL_SIZE, MaskedConv2d, resized


class LayerCost(NamedTuple):
    """A convolution or linear layer of a network, for one image.

    ``macs`` are multiply-accumulates with nothing skipped; ``masked`` is whether a mask applies to
    it; ``outputs`` counts the numbers in its output, of height and width ``size``.
    """

    name: str
    macs: int
    masked: bool
    outputs: int
    size: tuple[int, int]

    def macs_at(self, share: float) -> int:
        """Multiply-accumulates of a masked layer with ``share`` of the positions computed."""
        fill = self.outputs * FILL_SIZE**2
        return int(self.macs * share) + int((1 - share) * share * fill)


def layer_costs(net: nn.Module, image_size: tuple[int, int, int]) -> list[LayerCost]:
    """The layers of a network in the order in which an image (channels, height, width) passes them.

    Counted on a copy without weights: the network itself is not run.
    """
    blank = copy_on(net, "meta").eval()
    costs: list[LayerCost] = []

    def add(name: str, layer: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        conv = isinstance(layer, nn.Conv2d)
        macs = output.numel() * layer.weight[0].numel()
        size = (output.shape[-2], output.shape[-1]) if conv else (1, 1)
        outputs = len(layer.weight) * size[0] * size[1]
        costs.append(LayerCost(name, macs, isinstance(layer, MaskedConv2d), outputs, size))

    for name, module in blank.named_modules():
        if isinstance(module, nn.Upsample):  # same sizes, without the 45 ms that bilinear takes
            module.mode, module.align_corners = "nearest", None
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda layer, _, output, name=name: add(name, layer, output)
            )
    with torch.no_grad(), skip_norms():
        blank(blank_image(blank, image_size))
    return costs


def exit_macs(
    layers: Sequence[Sequence[LayerCost]], masks: Sequence[Tensor | None] = (), grid: int = 0
) -> list[int]:
    """Multiply-accumulates up to each exit, for one image, with the heads of the earlier ones.

    ``layers`` are those that each exit adds to the exit before (`AnytimeNet.layer_costs`),
    ``masks`` the positions that it computed (`ExitOutput.computed`): None, or left out, for all;
    ``grid`` is the network's. It is the mean over images, as the authors take it; pass one image's
    masks for the cost of that image.
    """
    shares = list(masks) + [None] * (len(layers) - len(masks))
    total, totals = 0, []
    for added, mask in zip(layers, shares, strict=True):
        share_at: dict[tuple[int, int], float] = {}
        for layer in added:
            if mask is None or not layer.masked:
                total += layer.macs
                continue
            if layer.size not in share_at:
                share_at[layer.size] = float(resized(mask, layer.size, grid).double().mean())
            total += layer.macs_at(share_at[layer.size])
        totals.append(total)
    return totals
