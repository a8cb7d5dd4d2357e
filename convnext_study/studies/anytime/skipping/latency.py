"""What each method costs in each layer of a network, measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.benchmarks.timing import interleave
from convnext_study.studies.anytime.masks import MaskedConv2d, ResizedMask
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.skipping.branches import SkippingBranch
from convnext_study.studies.anytime.skipping.indices import size_of, tile_share
from convnext_study.studies.anytime.skipping.methods import (
    METHODS,
    Fill,
    LatencyModel,
    MethodSkipper,
    Table,
    can_use,
    layer_key,
)

Clock = Callable[[], float]

SHARES = (0.1, 0.5)  # of computed positions, between and beyond which costs lie on a line
REGION = 16  # side of what a random mask keeps or skips as one, in positions of the largest map


def laps(
    run: Callable[[], Iterable[object]],
    clock: Clock = time.perf_counter,
    wait: Callable[[], object] = lambda: None,
) -> list[float]:
    """Seconds from the start of ``run``, which is called once, to each of the items that it yields.

    As ``clock``, `time.process_time` counts this process alone, on a machine that others use too;
    ``wait`` is called before the clock is read, for devices that answer before they are done.
    """
    wait()
    began = clock()
    found: list[float] = []
    for _ in run():
        wait()
        found.append(clock() - began)
    return found


def waiter(device: torch.device) -> Callable[[], object]:
    """What waits until a device is done; for a CPU nothing."""
    return (lambda: None) if device.type == "cpu" else torch.accelerator.synchronize


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
    """Time every method in every kind of masked layer, and then of branch, that images ``x``
    (N, in_chans, H, W) meet in an accelerated network, which gets the table.

    Measures are interleaved and repeated; medians are taken. ``clock`` is as for `laps`.
    """
    table: dict[str, dict[str, LatencyModel]] = {}
    for module in fast.modules():
        if isinstance(module, MethodSkipper | SkippingBranch):
            module.table = table  # which fills up
    with torch.inference_mode():
        layers = _layers(fast, x)
        # Branches last: layer by layer they need the table of their layers.
        for layer, given in sorted(layers, key=lambda one: isinstance(one[0], SkippingBranch)):
            table[_key(layer, given)] = _measure(layer, given, repeats, clock)
    return table


def _key(layer: MaskedConv2d | SkippingBranch, x: Tensor) -> str:
    return layer_key(layer, x) if isinstance(layer, MaskedConv2d) else layer.key(x)


def _layers(fast: AnytimeNet, x: Tensor) -> list[tuple[MaskedConv2d | SkippingBranch, Tensor]]:
    """One convolution and one branch of each kind, each with an input of it."""
    found: dict[str, tuple[MaskedConv2d | SkippingBranch, Tensor]] = {}

    def keep(layer: MaskedConv2d | SkippingBranch, args: tuple[Tensor, ...]) -> None:
        if (key := _key(layer, args[0])) not in found:
            found[key] = layer, args[0].clone()

    hooks = [
        module.register_forward_pre_hook(keep)
        for module in fast.modules()
        if isinstance(module, SkippingBranch)
        or (isinstance(module, MaskedConv2d) and module.skipper is not None)
    ]
    before, skippers = fast.threshold, fast.head_skippers
    fast.threshold, fast.head_skippers = 1.0, {}  # so that every layer is met
    try:
        fast(x)
    finally:
        fast.threshold, fast.head_skippers = before, skippers
        for hook in hooks:
            hook.remove()
    return list(found.values())


def _measure(
    layer: MaskedConv2d | SkippingBranch, x: Tensor, repeats: int, clock: Clock
) -> dict[str, LatencyModel]:
    """Of each method, or form of a branch: milliseconds against the share, through two medians."""
    size = layer.output_size(x) if isinstance(layer, MaskedConv2d) else size_of(x)
    points: dict[str, list[tuple[float, float]]] = {}
    for share in SHARES:
        layer.segment.set(coherent_mask(share, size, len(x)).to(x.device))
        mask = layer.segment.at(size)
        assert mask is not None  # noqa: S101  it was set
        forms = _forms(layer, x, mask)
        for form in forms.values():
            form()  # what is derived of the mask is shared by many layers
        wait = waiter(x.device)
        measures = {name: partial(_seconds, form, clock, wait) for name, form in forms.items()}
        for name, seconds in interleave(measures, repeats).items():
            at = tile_share(mask) if name == "tiles" else mask.share
            points.setdefault(name, []).append((at, 1000 * statistics.median(seconds)))
    layer.segment.set(None)
    return {name: _fit(*both) for name, both in points.items()}


def _forms(
    layer: MaskedConv2d | SkippingBranch, x: Tensor, mask: ResizedMask
) -> dict[str, Callable[[], object]]:
    if isinstance(layer, SkippingBranch):
        return {"layers": partial(layer.by_layers, x), "rows": partial(layer.by_rows, x, mask)}
    assert isinstance(layer.skipper, MethodSkipper)  # noqa: S101  _layers() keeps no others
    fill = Fill(layer, mask, layer.skipper)
    usable = [name for name in METHODS if can_use(name, layer)]
    return {name: partial(METHODS[name], fill, x) for name in usable}


def _fit(low: tuple[float, float], high: tuple[float, float]) -> LatencyModel:
    """Through two shares and their milliseconds; flat where both shares are one, as on maps of few
    positions."""
    (less, fast), (more, slow) = low, high
    slope = max(0.0, (slow - fast) / (more - less)) if more > less else 0.0
    return LatencyModel(fast - slope * less, slope)


def _seconds(form: Callable[[], object], clock: Clock, wait: Callable[[], object]) -> float:
    return laps(lambda: [form()], clock, wait)[-1]
