"""The anytime network: a backbone's stages, an exit after each, and masks between the exits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convnext_study.cost import Cost
from convnext_study.studies.anytime.backbones import (
    Backbone,
    FlexHead,
    make_backbone,
    original_head,
    rename_released,
    upsample,
)
from convnext_study.studies.anytime.layer_cost import LayerCost, exit_macs, layer_costs
from convnext_study.studies.anytime.masks import (
    SegmentMask,
    confidence,
    is_exported,
    mask_convolutions,
    resized,
    unsure,
)
from convnext_study.studies.anytime.spec import AnytimeSpec

# Computes a head's logits where the segment's mask is true, and anything elsewhere.
HeadSkipper = Callable[[nn.Module, Sequence[Tensor], SegmentMask], Tensor]


class ExitOutput(NamedTuple):
    """What one exit, numbered from 1, answers.

    ``logits`` (N, classes, h, w) are at the size of the backbone's largest map (1/4 in HRNet).
    ``computed`` (N, 1, h, w) is true where this exit was computed, false where it keeps the logits
    of the exit before; None where everything was. A spec's grid is computed besides.
    """

    exit: int
    logits: Tensor
    computed: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """``computed``, or a mask that is true everywhere."""
        everywhere = torch.ones_like(self.logits[:, :1], dtype=torch.bool)
        return everywhere if self.computed is None else self.computed


class Prediction(NamedTuple):
    """What is known after one exit, from 1.

    ``logits`` (N, classes, h, w) are at the size of the backbone's largest map; `upsample` brings
    them to the image's. Of each position, (N, h, w): ``labels``, the likeliest class;
    ``confidence``, its probability; ``computed``, whether this exit computed it or kept it.
    ``milliseconds`` are from the image to this answer.
    """

    exit: int
    logits: Tensor
    labels: Tensor
    confidence: Tensor
    computed: Tensor
    milliseconds: float


class AnytimeNet(nn.Module):
    """Images (N, in_chans, H, W) to the logits of every exit.

    Logits are at the size of the backbone's largest map; a task upsamples them bilinearly to the
    size of its labels (`upsample`), as the authors do. An HRNet has no stochastic depth
    (``drop_path_rate``).

    Raises SpecError, one line that names the field, for a network that cannot be built.
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
        self.spec, self.exits = spec, spec.exits
        self.num_classes, self.in_chans = num_classes, in_chans
        self.backbone: Backbone = make_backbone(spec, in_chans, drop_path_rate)
        self.heads = nn.ModuleDict({str(exit): self._head(exit) for exit in spec.exits})
        self.threshold = spec.threshold
        self.random_shares = spec.random_shares
        self.register_load_state_dict_pre_hook(rename_released)  # type: ignore[no-untyped-call]
        self.segments: dict[int, SegmentMask] = {}
        self.exit_ms: dict[int, float] = {}  # what each exit took when it was last predicted
        self.head_skipper: HeadSkipper | None = None
        if spec.masks == "none":
            return
        for exit, added in list(self._added())[1:]:  # an exit's mask rules all that the next adds
            segment = self.segments[exit] = SegmentMask(spec.grid)
            for module in added:
                mask_convolutions(module, segment)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, num_classes, h, w) of every exit, in order."""
        return [output.logits for output in self.run(x)]

    def run(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Iterator[ExitOutput]:
        """The exits one by one: nothing of the next is computed before it is requested.

        In evaluation mode, once no position is left to compute, further exits cost nothing and
        equal the one before bit for bit.

        ``masks`` take the place of the network's own, for each exit but the first: (N, 1, h, w),
        or (1, 1, h, w) for all, true where it is computed, at the size of the logits.
        """
        maps: list[Tensor] = []
        done, logits, order = 0, None, None
        for index, exit in enumerate(self.exits):
            computed = self._computed(exit, logits, order)
            if masks and computed is not None:
                computed = masks[index - 1].expand(len(x), -1, -1, -1)
            if logits is None or computed is None or not self._is_finished(computed):
                with self._masked(exit, computed):
                    for stage in range(done + 1, exit + 1):
                        maps = self.backbone.run_stage(stage, maps or [x])
                    fresh = self._logits(exit, maps)
                done = exit
                if logits is None or computed is None or not self.spec.merge:
                    logits = fresh
                else:
                    logits = torch.where(resized(computed, grid=self.spec.grid), fresh, logits)
            if order is None and self.spec.masks == "random":
                # Positions below a share are computed: a smaller share takes a part of a larger
                # one's positions, as confident positions stay confident.
                order = torch.rand_like(logits[:, :1])
            yield ExitOutput(exit, logits, computed)

    def anytime(
        self,
        images: Tensor,
        budget_ms: float | None = None,
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Prediction]:
        """A prediction from each exit, each from more computation than the one before.

        Stops when the caller does (nothing of the next exit is computed before it is requested),
        when ``stop`` returns true, and before an exit that would come after the budget: it is
        expected to take as long as in the last call (``exit_ms``), and one that was never timed as
        long as the one before it. The first exit is always given, late or not. For a network in
        evaluation mode; `skipping.accelerate.accelerated` makes a fast one.

        Args:
            images: (N, in_chans, H, W), or one image (in_chans, H, W).
            budget_ms: milliseconds from now; None for no limit.
            stop: called before each exit but the first.

        Raises:
            ValueError: a network in training mode.
        """
        if self.training:
            raise ValueError("the network is in training mode; call eval() first")
        x = images if images.ndim == 4 else images[None]
        began = time.perf_counter()
        outputs = self.run(x)
        last = 0.0
        for exit in self.exits:
            if exit != self.exits[0]:
                if stop():
                    return
                elapsed = 1000 * (time.perf_counter() - began)
                if budget_ms is not None and elapsed + self.exit_ms.get(exit, last) > budget_ms:
                    return
            before = time.perf_counter()
            with torch.no_grad():
                output = next(outputs)
                logits = output.logits
                labels, certainty = logits.argmax(dim=1), confidence(logits)[:, 0]
                computed = output.mask[:, 0]
            if x.device.type != "cpu":
                torch.accelerator.synchronize()
            now = time.perf_counter()
            last = self.exit_ms[exit] = 1000 * (now - before)
            yield Prediction(exit, logits, labels, certainty, computed, 1000 * (now - began))

    def layer_costs(self, image_size: tuple[int, int, int]) -> list[list[LayerCost]]:
        """The layers that each exit adds to the exit before, for `layer_cost.exit_macs`.

        ``image_size``: channels, height and width of an image.
        """
        layers = layer_costs(self, image_size)
        return [
            [layer for layer in layers if f"{layer.name}.".startswith(names)]
            for names in self._parts()
        ]

    def exit_costs(self, image_size: tuple[int, int, int]) -> list[Cost]:
        """Of all that is computed up to each exit, with the heads of earlier ones, where nothing is
        skipped.

        ``image_size``: channels, height and width of an image.
        """
        layers = self.layer_costs(image_size)
        sizes = {name: weight.numel() for name, weight in self.named_parameters()}
        found, params, activations = [], 0, 0
        for macs, added, names in zip(exit_macs(layers), layers, self._parts(), strict=True):
            params += sum(size for name, size in sizes.items() if name.startswith(names))
            activations += sum(layer.outputs for layer in added)
            found.append(Cost(macs, params, activations))
        return found

    def get_classifier(self) -> list[nn.Conv2d]:
        """The last convolution of every exit's head."""
        heads = (self.heads[str(exit)] for exit in self.exits)
        return [[one for one in head.modules() if isinstance(one, nn.Conv2d)][-1] for head in heads]

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh last convolution in every head, for another number of classes."""
        for last in self.get_classifier():
            fresh = nn.Conv2d(last.in_channels, num_classes, 1).to(last.weight)
            last.weight, last.bias, last.out_channels = fresh.weight, fresh.bias, num_classes
        self.num_classes = num_classes

    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming`` (timm's HRNet), ``trunc_normal`` (0.02), or ``normal`` (0.001, the authors').

        Biases become 0; a pretrained backbone keeps its weights. Raises KeyError for other schemes.
        """
        fill = {
            "kaiming": partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"),
            "trunc_normal": partial(nn.init.trunc_normal_, std=0.02),
            "normal": partial(nn.init.normal_, std=0.001),
        }[scheme]
        parts = (self.heads,) if self.spec.pretrained else (self.backbone, self.heads)
        for conv in (one for part in parts for one in part.modules()):
            if isinstance(conv, nn.Conv2d):
                fill(conv.weight)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def _added(self) -> Iterator[tuple[int, list[nn.Module]]]:
        """Each exit with the modules that it adds to the exit before."""
        for before, exit in pairwise((0, *self.exits)):
            stages = range(before + 1, exit + 1)
            added = [one for stage in stages for one in self.backbone.modules_of(stage)]
            yield exit, [*added, self.heads[str(exit)]]

    def _parts(self) -> list[tuple[str, ...]]:
        """Of each exit: how the names of the modules begin that it adds."""
        owner = {id(module): f"{name}." for name, module in self.named_modules()}
        return [tuple(owner[id(one)] for one in added) for _, added in self._added()]

    def _computed(self, exit: int, logits: Tensor | None, order: Tensor | None) -> Tensor | None:
        """Where an exit is computed, given the logits of the one before; None for everywhere."""
        if logits is None or exit not in self.segments or logits.is_meta:
            return None
        if order is not None:
            return order < self.random_shares[self.exits.index(exit) - 1]
        return unsure(logits, self.threshold, self.spec.masks)

    def _is_finished(self, computed: Tensor) -> bool:
        """Whether nothing is left. Training continues: every weight needs a gradient."""
        open_ended = not self.spec.merge or self.spec.grid > 0 or self.training or is_exported()
        return not open_ended and not bool(computed.any())

    @contextmanager
    def _masked(self, exit: int, computed: Tensor | None) -> Iterator[None]:
        segment = self.segments.get(exit, SegmentMask())
        # In evaluation a mask that skips nothing is none: the dense network, and as fast.
        fixed = self.training or is_exported()
        everything = computed is None or (not fixed and bool(computed.all()))
        segment.set(None if everything else computed)
        try:
            yield
        finally:
            segment.set(None)

    def _head(self, exit: int) -> nn.Module:
        channels = self.backbone.exit_channels[exit - 1]
        poolings = self.backbone.total_stages - exit
        if self.spec.heads == "original" or poolings == 0:
            head: nn.Module = original_head(channels, self.num_classes)
        else:
            width = self.spec.width_of_flex_heads()
            head = FlexHead(channels, width, self.num_classes, poolings)
        for module in head.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.spec.head_momentum
        return head

    def _logits(self, exit: int, maps: list[Tensor]) -> Tensor:
        shown = self.backbone.exit_maps(maps)
        size = (shown[0].shape[-2], shown[0].shape[-1])
        segment = self.segments.get(exit)
        if self.head_skipper is not None and segment is not None and segment.active is not None:
            return self.head_skipper(self.heads[str(exit)], shown, segment)
        maps = [upsample(one, size) for one in shown]
        together = torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]
        logits: Tensor = self.heads[str(exit)](together)
        return logits


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> AnytimeNet:
    """The network of a record: ``args`` are `AnytimeSpec`'s fields."""
    spec = AnytimeSpec.from_dict(args)
    net = AnytimeNet(spec, num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net
