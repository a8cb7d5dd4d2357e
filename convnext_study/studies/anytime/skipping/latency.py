"""What each method costs in each layer of a network, measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.benchmarks.timing import interleave, wait
from convnext_study.studies.anytime.masks import MaskedConv2d, ResizedMask
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.skipping.methods import (
    METHODS,
    Fill,
    LatencyModel,
    MethodSkipper,
    Table,
    has_positions,
    layer_key,
)

Clock = Callable[[], float]

SHARES = (0.1, 0.5)  # of computed positions, between and beyond which costs lie on a line
REGION = 16  # side of what a random mask keeps or skips as one, in positions of the largest map


def laps(
    run: Callable[[], Iterable[object]], clock: Clock, device: torch.device | None = None
) -> list[float]:
    """Seconds from the start of ``run``, which is called once, to each of the items that it yields.

    As ``clock``, `time.process_time` counts this process alone, on a machine that others use too;
    it is read once the ``device`` is done.
    """
    kind = "cpu" if device is None else device.type
    wait(kind)
    began = clock()
    found: list[float] = []
    for _ in run():
        wait(kind)
        found.append(clock() - began)
    return found


def coherent_mask(share: float, size: tuple[int, int], count: int = 1, seed: int = 0) -> Tensor:
    """A random mask (count, 1, h, w) whose computed positions come in regions, as real ones do.

    ``share`` of positions of each image are computed; one at least, unless it is 0.
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
    """Time every method in every kind of masked layer that images ``x`` (N, in_chans, H, W) meet in
    an accelerated network, which gets the table.

    Measures are interleaved and repeated; medians are taken. ``clock`` is as for `laps`.
    """
    table: dict[str, dict[str, LatencyModel]] = {}
    for module in fast.modules():
        if isinstance(module, MethodSkipper):
            module.table = table  # which fills up
    with torch.inference_mode():
        for key, (conv, given) in _layers(fast, x).items():
            table[key] = _measure(conv, given, repeats, clock)
    return table


def _layers(fast: AnytimeNet, x: Tensor) -> dict[str, tuple[MaskedConv2d, Tensor]]:
    """One convolution of each kind, with an input of it."""
    found: dict[str, tuple[MaskedConv2d, Tensor]] = {}

    def keep(conv: MaskedConv2d, args: tuple[Tensor, ...]) -> None:
        if (key := layer_key(conv, args[0])) not in found:
            found[key] = conv, args[0].clone()

    hooks = [
        module.register_forward_pre_hook(keep)
        for module in fast.modules()
        if isinstance(module, MaskedConv2d) and module.skipper is not None
    ]
    before, skippers = fast.threshold, fast.head_skippers
    fast.threshold, fast.head_skippers = 1.0, {}  # so that every layer is met
    try:
        fast(x)
    finally:
        fast.threshold, fast.head_skippers = before, skippers
        for hook in hooks:
            hook.remove()
    return found


def _measure(conv: MaskedConv2d, x: Tensor, repeats: int, clock: Clock) -> dict[str, LatencyModel]:
    """Of each method: milliseconds against the share, through two medians."""
    points: dict[str, list[tuple[float, float]]] = {}
    for share in SHARES:
        mask = ResizedMask(coherent_mask(share, conv.output_size(x), len(x)).to(x.device))
        assert isinstance(conv.skipper, MethodSkipper)  # noqa: S101  _layers() keeps no others
        fill = Fill(conv, mask, conv.skipper)
        forms = {
            name: partial(method, fill, x)
            for name, method in METHODS.items()
            if name == "whole" or has_positions(conv)
        }
        for form in forms.values():
            form()  # what is derived of the mask is shared by many layers
        measures = {name: partial(_seconds, form, clock, x) for name, form in forms.items()}
        for name, seconds in interleave(measures, repeats).items():
            points.setdefault(name, []).append((mask.share, 1000 * statistics.median(seconds)))
    return {name: _fit(*both) for name, both in points.items()}


def _fit(low: tuple[float, float], high: tuple[float, float]) -> LatencyModel:
    """Through two shares and their milliseconds; flat where both shares are one, as on maps of few
    positions."""
    (less, fast), (more, slow) = low, high
    slope = max(0.0, (slow - fast) / (more - less)) if more > less else 0.0
    return LatencyModel(fast - slope * less, slope)


def _seconds(form: Callable[[], object], clock: Clock, x: Tensor) -> float:
    return laps(lambda: [form()], clock, x.device)[-1]
