"""The anytime network: a backbone's stages, an exit after each, and masks between the exits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.studies.anytime.masks.confidence import merge, random_order, unsure
from convnext_study.studies.anytime.masks.convolution import MaskedConv2d, mask_convolutions
from convnext_study.studies.anytime.masks.cost import LayerCost, layer_costs
from convnext_study.studies.anytime.masks.segment import SegmentMask
from convnext_study.studies.anytime.networks.backbone import Backbone, make_backbone
from convnext_study.studies.anytime.networks.heads import FlexHead, original_head, upsample
from convnext_study.studies.anytime.networks.predictions import Prediction, predict
from convnext_study.studies.anytime.networks.weights import init_convs
from convnext_study.studies.anytime.spec import AnytimeSpec

# Computes a head's logits where the segment's mask is true, and anything elsewhere.
HeadSkipper = Callable[[nn.Module, Sequence[Tensor], SegmentMask], Tensor]


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
        num_classes: int = 19,
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
        self.threshold = spec.threshold
        self.random_shares = spec.random_shares
        self.segments: dict[int, SegmentMask] = {}
        self.exit_ms: dict[int, float] = {}  # what each exit took when it was last predicted
        self.head_skippers: dict[int, HeadSkipper] = {}
        if spec.masks != "none":
            self._mask()

    @property
    def exits(self) -> tuple[int, ...]:
        """Numbers of the exits, from 1."""
        return self.spec.exits

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, num_classes, h, w) of every exit, in order."""
        return [output.logits for output in self.run(x)]

    def run(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Iterator[ExitOutput]:
        """The exits one by one: nothing of the next is computed before it is asked for.

        In evaluation mode, once no position is left to compute, further exits cost nothing and
        equal the one before bit for bit.

        Args:
            x: images (N, in_chans, H, W).
            masks: in the place of the network's own, for each exit but the first: (N, 1, h, w),
                true where it is computed, at the size of the logits.
        """
        maps: list[Tensor] = []
        done, logits, order = 0, None, None
        for index, exit in enumerate(self.exits):
            computed = self._computed(exit, logits, order)
            if masks and computed is not None:
                computed = masks[index - 1]
            if logits is None or computed is None or not self._is_finished(computed):
                with self._masked(exit, computed):
                    for stage in range(done + 1, exit + 1):
                        maps = (
                            self.backbone.advance(stage, maps) if maps else self.backbone.begin(x)
                        )
                    fresh = self._logits(exit, maps)
                done = exit
                if logits is None or computed is None or not self.spec.merge:
                    logits = fresh
                else:
                    logits = merge(logits, fresh, computed)
            if order is None and self.spec.masks == "random":
                order = random_order(logits)
            yield ExitOutput(exit, logits, computed)

    def anytime(
        self, images: Tensor, budget_ms: float | None = None, **options: Any
    ) -> Iterator[Prediction]:
        """Predictions as they come, within a budget: see `predictions.predict`."""
        return predict(self, images, budget_ms, **options)

    def layer_costs(self, image_size: tuple[int, int, int]) -> list[list[LayerCost]]:
        """The layers that each exit adds to the exit before, for `masks.cost.exit_macs`.

        Args:
            image_size: channels, height and width of an image.
        """
        layers = layer_costs(self, image_size)
        parts = self._parts()
        return [
            [layer for layer in layers if f"{layer.name}.".startswith(names)]
            for names in parts.values()
        ]

    def params_to_exits(self) -> list[int]:
        """Parameters of all that is computed up to each exit, with the heads of earlier ones."""
        sizes = {name: weight.numel() for name, weight in self.named_parameters()}
        total, found = 0, []
        for names in self._parts().values():
            total += sum(size for name, size in sizes.items() if name.startswith(names))
            found.append(total)
        return found

    def get_classifier(self) -> list[nn.Module]:
        """The last convolution of every exit's head."""
        return [self.heads[str(exit)].get_submodule(self._last_of(exit)) for exit in self.exits]

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last convolution in every head, for another number of classes."""
        for exit, last in zip(self.exits, self.get_classifier(), strict=True):
            assert isinstance(last, nn.Conv2d)  # noqa: S101
            fresh = nn.Conv2d(last.in_channels, num_classes, 1).to(last.weight)
            if exit in self.segments:
                fresh = MaskedConv2d(fresh, self.segments[exit])
            self.heads[str(exit)].set_submodule(self._last_of(exit), fresh.train(self.training))
        self.num_classes = num_classes

    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming`` (timm's HRNet), ``trunc_normal`` (0.02), or ``normal`` (0.001, the authors').

        A pretrained backbone keeps its weights.
        """
        for part in (self.heads,) if self.spec.pretrained else (self.backbone, self.heads):
            init_convs(part, scheme)

    def _mask(self) -> None:
        """Let each exit's mask rule all that the next one adds."""
        for before, exit in pairwise(self.exits):
            segment = self.segments[exit] = SegmentMask()
            for stage in range(before + 1, exit + 1):
                for module in self.backbone.modules_of(stage):
                    mask_convolutions(module, segment)
            mask_convolutions(self.heads[str(exit)], segment)

    def _parts(self) -> dict[int, tuple[str, ...]]:
        """Of each exit: how the names of the modules begin that it adds."""
        owner = {id(module): name for name, module in self.named_modules()}
        parts: dict[int, tuple[str, ...]] = {}
        done = 0
        for exit in self.exits:
            stages = range(done + 1, exit + 1)
            added = [one for stage in stages for one in self.backbone.modules_of(stage)]
            names = [owner[id(one)] for one in (*added, self.heads[str(exit)])]
            parts[exit] = tuple(f"{name}." for name in names)
            done = exit
        return parts

    def _computed(self, exit: int, logits: Tensor | None, order: Tensor | None) -> Tensor | None:
        """Where an exit is computed, given the logits of the one before; None for everywhere."""
        if logits is None or exit not in self.segments or logits.is_meta:
            return None
        if order is not None:
            return order < self.random_shares[self.exits.index(exit) - 1]
        return unsure(logits, self.threshold)

    def _is_finished(self, computed: Tensor) -> bool:
        """Whether nothing is left. Training goes on: every weight needs a gradient."""
        return self.spec.merge and not self.training and not bool(computed.any())

    @contextmanager
    def _masked(self, exit: int, computed: Tensor | None) -> Iterator[None]:
        segment = self.segments.get(exit, SegmentMask())
        # In evaluation a mask that skips nothing is none: the dense network, and as fast.
        everything = computed is None or (not self.training and bool(computed.all()))
        segment.set(None if everything else computed)
        try:
            yield
        finally:
            segment.set(None)

    def _head(self, exit: int) -> nn.Module:
        channels = self.backbone.exit_channels[exit - 1]
        poolings = self.backbone.total_stages - exit
        if self.spec.heads == "original" or poolings == 0:
            return original_head(channels, self.num_classes)
        return FlexHead(channels, self.spec.width_of_flex_heads(), self.num_classes, poolings)

    def _last_of(self, exit: int) -> str:
        head = self.heads[str(exit)]
        return f"convs.{len(head.convs) - 1}" if isinstance(head, FlexHead) else "3"

    def _logits(self, exit: int, maps: list[Tensor]) -> Tensor:
        shown = self.backbone.exit_maps(maps)
        size = (shown[0].shape[-2], shown[0].shape[-1])
        segment, skipper = self.segments.get(exit), self.head_skippers.get(exit)
        if segment is not None and segment.active is not None and skipper is not None:
            return skipper(self.heads[str(exit)], shown, segment)
        together = torch.cat([upsample(one, size) for one in shown], dim=1)
        logits: Tensor = self.heads[str(exit)](together)
        return logits


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> AnytimeNet:
    """The network of a record: ``args`` are `AnytimeSpec`'s fields."""
    spec = AnytimeSpec.from_dict(args)
    net = AnytimeNet(spec, num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net
