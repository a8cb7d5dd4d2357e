"""The anytime network: a backbone's stages, an exit after each, and masks between the exits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.anytime.networks.backbone import Backbone, make_backbone
from convnext_study.studies.anytime.networks.heads import FlexHead, original_head, upsample
from convnext_study.studies.anytime.spec import AnytimeSpec

INIT_STD = {"trunc_normal": 0.02, "normal": 0.001}  # the second is the authors'


@dataclass(frozen=True)
class ExitOutput:
    """What one exit answers.

    Args:
        exit: its number, from 1.
        logits: (N, classes, h, w), at the size of the backbone's largest map (1/4 in HRNet).
        computed: (N, 1, h, w), true where this exit was computed, false where it keeps the logits
            of the exit before; None where everything was.
    """

    exit: int
    logits: Tensor
    computed: Tensor | None = None


class AnytimeNet(nn.Module):
    """Images (N, in_chans, H, W) to the logits of every exit.

    Logits are at the size of the backbone's largest map; a task upsamples them bilinearly to the
    size of its labels (`upsample`), as the authors do.

    Args:
        spec: what to build.
        num_classes: of each position.
        in_chans: channels of the image.
        drop_path_rate: stochastic depth of the backbone, which an HRNet does not have.

    Raises:
        SpecError: a network that cannot be built, in one line that names the field.
    """

    def __init__(
        self,
        spec: AnytimeSpec,
        *,
        num_classes: int,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.backbone: Backbone = make_backbone(
            spec, in_chans=in_chans, drop_path_rate=drop_path_rate
        )
        self.heads = nn.ModuleDict({str(exit): self._head(exit) for exit in spec.exits})

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, num_classes, h, w) of every exit, in order."""
        return [output.logits for output in self.run(x)]

    def run(self, x: Tensor) -> Iterator[ExitOutput]:
        """The exits one by one: nothing of the next is computed before it is asked for."""
        maps: list[Tensor] = []
        for stage in range(1, self.backbone.stages + 1):
            maps = self.backbone.begin(x) if stage == 1 else self.backbone.advance(stage, maps)
            if stage in self.spec.exits:
                yield ExitOutput(stage, self._logits(stage, maps))

    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming`` (timm's HRNet), ``trunc_normal`` (0.02), or ``normal`` (0.001, the authors').

        A pretrained backbone keeps its weights.
        """
        for part in (self.heads,) if self.spec.pretrained else (self.backbone, self.heads):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    _init_conv(module, scheme)

    def _head(self, exit: int) -> nn.Module:
        channels = self.backbone.exit_channels[exit - 1]
        poolings = self.backbone.total_stages - exit
        if self.spec.heads == "original" or poolings == 0:
            return original_head(channels, self.num_classes)
        return FlexHead(channels, self.spec.width_of_flex_heads(), self.num_classes, poolings)

    def _logits(self, exit: int, maps: list[Tensor]) -> Tensor:
        shown = self.backbone.exit_maps(maps)
        size = (shown[0].shape[-2], shown[0].shape[-1])
        together = torch.cat([upsample(one, size) for one in shown], dim=1)
        logits: Tensor = self.heads[str(exit)](together)
        return logits


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> AnytimeNet:
    """The network of a record: ``args`` are `AnytimeSpec`'s fields."""
    spec = AnytimeSpec.from_dict(args)
    net = AnytimeNet(spec, num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net


def _init_conv(conv: nn.Conv2d, scheme: str) -> None:
    if scheme == "kaiming":
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    elif scheme == "trunc_normal":
        nn.init.trunc_normal_(conv.weight, std=INIT_STD[scheme])
    else:
        nn.init.normal_(conv.weight, std=INIT_STD[scheme])
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
