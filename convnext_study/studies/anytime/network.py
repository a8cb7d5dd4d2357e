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

# Computes a head's logits where the segment's mask is true; they are undefined elsewhere.
HeadSkipper = Callable[[nn.Module, Sequence[Tensor], SegmentMask], Tensor]


class ExitOutput(NamedTuple):
    """The output of one exit, numbered from 1.

    ``logits`` (N, classes, h, w) are at the size of the backbone's largest map (1/4 in HRNet).
    ``computed`` (N, 1, h, w) is true where this exit was computed, false where it keeps the logits
    of the exit before; None if all was computed. It does not include the spec's grid.
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
    """The prediction of one exit, numbered from 1.

    ``logits`` (N, classes, h, w) are at the size of the backbone's largest map; `upsample` brings
    them to the image's. Per position, (N, h, w): ``labels``, the most likely class; ``confidence``,
    its probability; ``computed``, whether this exit computed it or kept the one before.
    ``milliseconds`` are from the image to this prediction.
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
        self.exit_ms: dict[int, float] = {}  # how long each exit took in the last prediction
        self.head_skipper: HeadSkipper | None = None
        if spec.masks == "none":
            return
        for exit, added in list(self._added())[1:]:  # the exit before masks all that an exit adds
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

        ``masks`` replace the network's own, for each exit but the first: (N, 1, h, w), or
        (1, 1, h, w) for all images, true where it is computed, at the size of the logits.
        """
        maps: list[Tensor] = []
        stages_done, logits, order = 0, None, None
        for index, exit in enumerate(self.exits):
            computed = self._computed(exit, logits, order)
            if masks and computed is not None:
                computed = masks[index - 1].expand(len(x), -1, -1, -1)
            if logits is None or computed is None or not self._is_finished(computed):
                with self._masked(exit, computed):
                    for stage in range(stages_done + 1, exit + 1):
                        maps = self.backbone.run_stage(stage, maps or [x])
                    new_logits = self._logits(exit, maps)
                stages_done = exit
                if logits is None or computed is None or not self.spec.merge:
                    logits = new_logits
                else:
                    logits = torch.where(resized(computed, grid=self.spec.grid), new_logits, logits)
            if order is None and self.spec.masks == "random":
                # Positions below a share are computed: a smaller share's positions are among a
                # larger one's, as confident positions stay confident.
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
        when ``stop`` returns true, and before an exit that would exceed the budget: it is expected
        to take as long as in the last call (``exit_ms``), or as the exit before it if it was never
        timed. The first exit is always returned, late or not. For a network in evaluation mode;
        `skipping.accelerate.accelerated` makes a fast one.

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
        start = time.perf_counter()
        outputs = self.run(x)
        last_ms = 0.0
        for exit in self.exits:
            if exit != self.exits[0]:
                if stop():
                    return
                elapsed = 1000 * (time.perf_counter() - start)
                if budget_ms is not None and elapsed + self.exit_ms.get(exit, last_ms) > budget_ms:
                    return
            exit_start = time.perf_counter()
            with torch.no_grad():
                output = next(outputs)
                logits = output.logits
                labels, certainty = logits.argmax(dim=1), confidence(logits)[:, 0]
                computed = output.mask[:, 0]
            if x.device.type != "cpu":
                torch.accelerator.synchronize()
            now = time.perf_counter()
            last_ms = self.exit_ms[exit] = 1000 * (now - exit_start)
            yield Prediction(exit, logits, labels, certainty, computed, 1000 * (now - start))

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
        """The cost up to each exit, with the heads of earlier ones and nothing skipped.

        ``image_size``: channels, height and width of an image.
        """
        layers = self.layer_costs(image_size)
        sizes = {name: weight.numel() for name, weight in self.named_parameters()}
        costs, params, activations = [], 0, 0
        for macs, added, names in zip(exit_macs(layers), layers, self._parts(), strict=True):
            params += sum(size for name, size in sizes.items() if name.startswith(names))
            activations += sum(layer.outputs for layer in added)
            costs.append(Cost(macs, params, activations))
        return costs

    def get_classifier(self) -> list[nn.Conv2d]:
        """The last convolution of every exit's head."""
        heads = (self.heads[str(exit)] for exit in self.exits)
        return [[m for m in head.modules() if isinstance(m, nn.Conv2d)][-1] for head in heads]

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last convolution of every head, for another number of classes."""
        for last in self.get_classifier():
            fresh = nn.Conv2d(last.in_channels, num_classes, 1).to(last.weight)
            last.weight, last.bias, last.out_channels = fresh.weight, fresh.bias, num_classes
        self.num_classes = num_classes

    def init_weights(self, scheme: str = "kaiming") -> None:
        """``kaiming`` (timm's HRNet), ``trunc_normal`` (0.02), or ``normal`` (0.001, the authors').

        Biases are set to 0; a pretrained backbone keeps its weights. Raises KeyError for other
        schemes."""
        fill = {
            "kaiming": partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"),
            "trunc_normal": partial(nn.init.trunc_normal_, std=0.02),
            "normal": partial(nn.init.normal_, std=0.001),
        }[scheme]
        modules = (self.heads,) if self.spec.pretrained else (self.backbone, self.heads)
        for conv in (module for part in modules for module in part.modules()):
            if isinstance(conv, nn.Conv2d):
                fill(conv.weight)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def _added(self) -> Iterator[tuple[int, list[nn.Module]]]:
        """Each exit with the modules that it adds to the exit before."""
        for previous, exit in pairwise((0, *self.exits)):
            stages = range(previous + 1, exit + 1)
            added = [module for stage in stages for module in self.backbone.modules_of(stage)]
            yield exit, [*added, self.heads[str(exit)]]

    def _parts(self) -> list[tuple[str, ...]]:
        """For each exit, the name prefixes of the modules that it adds."""
        owner = {id(module): f"{name}." for name, module in self.named_modules()}
        return [tuple(owner[id(module)] for module in added) for _, added in self._added()]

    def _computed(self, exit: int, logits: Tensor | None, order: Tensor | None) -> Tensor | None:
        """Where an exit is computed, given the logits of the one before; None for everywhere."""
        if logits is None or exit not in self.segments or logits.is_meta:
            return None
        if order is not None:
            return order < self.random_shares[self.exits.index(exit) - 1]
        return unsure(logits, self.threshold, self.spec.masks)

    def _is_finished(self, computed: Tensor) -> bool:
        """Whether no position is left to compute. Never in training: weights need gradients."""
        endless = not self.spec.merge or self.spec.grid > 0 or self.training or is_exported()
        return not endless and not bool(computed.any())

    @contextmanager
    def _masked(self, exit: int, computed: Tensor | None) -> Iterator[None]:
        segment = self.segments.get(exit, SegmentMask())
        # In evaluation a mask that skips nothing is left out: as fast as the dense network.
        fixed = self.training or is_exported()
        all_computed = computed is None or (not fixed and bool(computed.all()))
        segment.set(None if all_computed else computed)
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
        exit_maps = self.backbone.exit_maps(maps)
        size = (exit_maps[0].shape[-2], exit_maps[0].shape[-1])
        segment = self.segments.get(exit)
        if self.head_skipper is not None and segment is not None and segment.active is not None:
            return self.head_skipper(self.heads[str(exit)], exit_maps, segment)
        maps = [upsample(m, size) for m in exit_maps]
        joined = torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]
        logits: Tensor = self.heads[str(exit)](joined)
        return logits


def build(args: dict[str, Any], *, num_classes: int, drop_path: float, init: str) -> AnytimeNet:
    """The network of a record: ``args`` are `AnytimeSpec`'s fields."""
    spec = AnytimeSpec.from_dict(args)
    net = AnytimeNet(spec, num_classes=num_classes, drop_path_rate=drop_path)
    net.init_weights(init)
    return net
