"""What each method costs in each layer of a network, measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.benchmarks.timing import interleave, laps
from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.skipping.choice import Line, Skipper, Table, layer_key
from convnext_study.studies.anytime.skipping.indices import tile_share
from convnext_study.studies.anytime.skipping.methods import METHODS, can_use

Clock = Callable[[], float]

SHARES = (0.1, 0.5)  # of computed positions, between and beyond which costs lie on a line
REGION = 16  # side of what a random mask keeps or skips as one, in positions of the largest map


def coherent_mask(share: float, size: tuple[int, int], count: int = 1, seed: int = 0) -> Tensor:
    """A random mask (count, 1, h, w) whose computed positions come in regions, as real ones do.

    Args:
        share: of positions that are computed; one at least, unless it is 0.
        size: height and width.
        count: of images, each with this share.
        seed: of the regions.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = [max(2, side // REGION) for side in size]
    noise = F.interpolate(torch.randn(count, 1, *coarse, generator=generator), size, mode="bicubic")
    order = noise.flatten(1).argsort(dim=1).argsort(dim=1)
    wanted = max(1, round(share * order.shape[1])) if share > 0 else 0
    return (order < wanted).view(count, 1, *size)


def measure_table(
    fast: AnytimeNet, x: Tensor, *, repeats: int = 5, clock: Clock = time.perf_counter
) -> Table:
    """Time every method in every kind of masked layer that images ``x`` meet.

    Args:
        fast: an accelerated network, on its device; it gets the table.
        x: images (N, in_chans, H, W) of the size and number that matter.
        repeats: of each measure, interleaved; medians are taken.
        clock: as for `timing.laps`.
    """
    with torch.inference_mode():
        layers = _layers(fast, x)
        table = Table({key: _lines(*layer, repeats, clock) for key, layer in layers.items()})
    for module in fast.modules():
        if isinstance(module, MaskedConv2d) and isinstance(module.skipper, Skipper):
            module.skipper.table = table
    return table


def waiter(device: torch.device) -> Callable[[], object]:
    """What waits until a device is done; for a CPU nothing."""
    return (lambda: None) if device.type == "cpu" else torch.accelerator.synchronize


def _layers(fast: AnytimeNet, x: Tensor) -> dict[str, tuple[MaskedConv2d, Tensor]]:
    """One convolution of each kind, and an input of it."""
    found: dict[str, tuple[MaskedConv2d, Tensor]] = {}

    def keep(conv: MaskedConv2d, args: tuple[Tensor, ...]) -> None:
        can_skip = isinstance(conv.skipper, Skipper) and conv.skipper.plan is not None
        if can_skip:
            found.setdefault(layer_key(conv, args[0]), (conv, args[0].clone()))

    masked = [module for module in fast.modules() if isinstance(module, MaskedConv2d)]
    hooks = [conv.register_forward_pre_hook(keep) for conv in masked]
    before, skippers = fast.threshold, fast.head_skippers
    fast.threshold, fast.head_skippers = 1.0, {}  # so that every layer is met
    try:
        fast(x)
    finally:
        fast.threshold, fast.head_skippers = before, skippers
        for hook in hooks:
            hook.remove()
    return found


def _lines(conv: MaskedConv2d, x: Tensor, repeats: int, clock: Clock) -> dict[str, Line]:
    """Of each method that can be used: milliseconds against the share, through two medians."""
    assert isinstance(conv.skipper, Skipper) and conv.skipper.plan is not None  # noqa: S101
    size = conv.output_size(x)
    masks = [SizedMask(coherent_mask(share, size, len(x)).to(x.device)) for share in SHARES]
    methods = [name for name in METHODS if can_use(name, conv)]
    measures = {}
    for name, (index, mask) in product(methods, enumerate(masks)):
        compute = partial(METHODS[name], conv, x, mask, conv.skipper.plan)
        compute()  # what is derived of the mask is shared by many layers
        measures[f"{name} {index}"] = partial(_seconds, compute, clock, waiter(x.device))
    found = interleave(measures, repeats)
    lines = {}
    for name in methods:
        low, high = (tile_share(mask) if name == "tiles" else mask.share for mask in masks)
        fast, slow = (1000 * statistics.median(found[f"{name} {index}"]) for index in (0, 1))
        slope = max(0.0, (slow - fast) / (high - low)) if high > low else 0.0
        lines[name] = Line(fast - slope * low, slope)
    return lines


def _seconds(compute: Callable[[], object], clock: Clock, wait: Callable[[], object]) -> float:
    return laps(lambda: [compute()], clock, wait)[-1]
