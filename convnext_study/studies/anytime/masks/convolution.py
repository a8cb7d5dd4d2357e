"""Convolutions that compute where a mask says, and fill in the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.fill import fill_skipped
from convnext_study.studies.anytime.masks.segment import SegmentMask, SizedMask
from convnext_study.studies.anytime.published import published

# Computes a convolution at the mask's positions: another way to the same numbers.
Skipper = Callable[["MaskedConv2d", Tensor, SizedMask], Tensor]


class MaskedConv2d(nn.Conv2d):
    """A convolution, bias included, where the segment's mask is true; a fill elsewhere.

    ``y * m + fill(y * m) * (1 - m)`` for the dense output y and the mask m at y's size. The dense
    output is computed whole, unless ``skipper`` is set and no gradient is wanted.

    Args:
        conv: whose weights are taken over, by the same names.
        segment: whose mask rules.

    ``shift`` (out_channels) is added everywhere, after the fill: a folded BatchNorm's. None as a
    rule.
    """

    shift: Tensor | None

    def __init__(self, conv: nn.Conv2d, segment: SegmentMask) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(
            {name: value for name, value in vars(conv).items() if not name.startswith("_")}
        )
        self._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
        self.weight, self.bias = conv.weight, conv.bias
        start = float(published()["fill"]["lambda_init"])
        self.fill_lambda = nn.Parameter(conv.weight.new_full((1,), start))
        self.segment = segment
        self.skipper: Skipper | None = None
        self.register_buffer("shift", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, h, w)."""
        mask = None if self.segment.active is None else self.segment.at(self.output_size(x))
        if mask is not None and self.skipper is not None and not torch.is_grad_enabled():
            return self.skipper(self, x, mask)
        return self.dense_form(x, mask)

    def dense_form(self, x: Tensor, mask: SizedMask | None) -> Tensor:
        """Everything computed, then masked: what skipping must equal."""
        if mask is None:
            dense: Tensor = self._conv_forward(x, self.weight, self.shifted_bias())
            return dense
        y = super().forward(x)
        if mask.share < 1:
            y = torch.where(mask.active, y, fill_skipped(y * mask.active, self.fill_lambda))
        elif torch.is_grad_enabled():
            # Every weight gets a gradient still, as data parallelism asks for.
            y = y + 0 * self.fill_lambda
        return y if self.shift is None else y + self.shift.view(-1, 1, 1)

    def shifted_bias(self) -> Tensor | None:
        """Bias and shift together, which is the bias where a position is computed."""
        if self.shift is None or self.bias is None:
            return self.bias if self.shift is None else self.shift
        return self.bias + self.shift

    def output_size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output for an input (N, in_channels, H, W)."""
        if isinstance(self.padding, str):
            raise NotImplementedError("padding given by a word")
        sides = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, padding, dilation, kernel, stride in zip(
                x.shape[-2:],
                self.padding,
                self.dilation,
                self.kernel_size,
                self.stride,
                strict=True,
            )
        )
        height, width = sides
        return height, width

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A plain network's weights lack it; what is there stays.
        state_dict.setdefault(f"{prefix}fill_lambda", self.fill_lambda.detach())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def mask_convolutions(module: nn.Module, segment: SegmentMask) -> nn.Module:
    """Put masked convolutions in the place of all of a module's; returns it, or what replaces it.

    Convolutions of squeeze-and-excitation layers stay: their maps have one position, which stands
    for all.
    """
    if isinstance(module, nn.Conv2d):
        return MaskedConv2d(module, segment)
    if not isinstance(module, _pooled_layers()):
        for name, child in module.named_children():
            setattr(module, name, mask_convolutions(child, segment))
    return module


def _pooled_layers() -> tuple[type[nn.Module], ...]:
    from timm import layers
    from timm.models._efficientnet_blocks import SqueezeExcite

    return (SqueezeExcite, layers.SEModule, layers.EffectiveSEModule, layers.GlobalContext)
