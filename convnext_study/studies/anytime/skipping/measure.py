"""What each method costs in each layer of a network, measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_study.benchmarks.timing import interleave, laps
from convnext_study.studies.anytime.masks.convolution import MaskedConv2d
from convnext_study.studies.anytime.masks.segment import SizedMask
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.skipping.branches import SkippingBranch
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
    """Time every method in every kind of masked layer, and then of branch, that images ``x`` meet.

    Args:
        fast: an accelerated network, on its device; it gets the table.
        x: images (N, in_chans, H, W) of the size and number that matter.
        repeats: of each measure, interleaved; medians are taken.
        clock: as for `timing.laps`.
    """
    with torch.inference_mode():
        convs, branches = _layers(fast, x)
        table = Table({key: _lines_of_conv(*one, repeats, clock) for key, one in convs.items()})
        give_table(fast, table)
        rows = {key: _lines_of_branch(*one, repeats, clock) for key, one in branches.items()}
        table = Table({**table.lines, **rows})
    give_table(fast, table)
    return table


def give_table(fast: AnytimeNet, table: Table) -> None:
    """Let an accelerated network choose by a table, such as one that was measured earlier."""
    for module in fast.modules():
        if isinstance(module, MaskedConv2d) and isinstance(module.skipper, Skipper):
            module.skipper.table = table
        elif isinstance(module, SkippingBranch):
            module.table = table


def waiter(device: torch.device) -> Callable[[], object]:
    """What waits until a device is done; for a CPU nothing."""
    return (lambda: None) if device.type == "cpu" else torch.accelerator.synchronize


def _layers(
    fast: AnytimeNet, x: Tensor
) -> tuple[dict[str, tuple[MaskedConv2d, Tensor]], dict[str, tuple[SkippingBranch, Tensor]]]:
    """One convolution and one branch of each kind, each with an input of it."""
    convs: dict[str, tuple[MaskedConv2d, Tensor]] = {}
    branches: dict[str, tuple[SkippingBranch, Tensor]] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, SkippingBranch):
            branches.setdefault(module.key(args[0]), (module, args[0].clone()))
            return
        assert isinstance(module, MaskedConv2d)  # noqa: S101  of the kinds below
        if isinstance(module.skipper, Skipper) and module.skipper.plan is not None:
            convs.setdefault(layer_key(module, args[0]), (module, args[0].clone()))

    kinds = [one for one in fast.modules() if isinstance(one, MaskedConv2d | SkippingBranch)]
    hooks = [one.register_forward_pre_hook(keep) for one in kinds]
    before, skippers = fast.threshold, fast.head_skippers
    fast.threshold, fast.head_skippers = 1.0, {}  # so that every layer is met
    try:
        fast(x)
    finally:
        fast.threshold, fast.head_skippers = before, skippers
        for hook in hooks:
            hook.remove()
    return convs, branches


def _lines_of_conv(conv: MaskedConv2d, x: Tensor, repeats: int, clock: Clock) -> dict[str, Line]:
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
    return {
        name: _line(
            [tile_share(mask) if name == "tiles" else mask.share for mask in masks],
            [found[f"{name} {index}"] for index in range(len(masks))],
        )
        for name in methods
    }


def _lines_of_branch(
    branch: SkippingBranch, x: Tensor, repeats: int, clock: Clock
) -> dict[str, Line]:
    """Milliseconds against the share, layer by layer and on rows."""
    wait, shares = waiter(x.device), []
    times: dict[str, list[list[float]]] = {"layers": [], "rows": []}
    for share in SHARES:
        branch.segment.set(coherent_mask(share, (x.shape[-2], x.shape[-1]), len(x)).to(x.device))
        mask = branch.segment.at((x.shape[-2], x.shape[-1]))
        assert mask is not None  # noqa: S101  it was set
        forms = {"layers": partial(branch.by_layers, x), "rows": partial(branch.by_rows, x, mask)}
        for form in forms.values():
            form()
        measures = {name: partial(_seconds, form, clock, wait) for name, form in forms.items()}
        for name, seconds in interleave(measures, repeats).items():
            times[name].append(seconds)
        shares.append(mask.share)
    branch.segment.set(None)
    return {name: _line(shares, seconds) for name, seconds in times.items()}


def _line(shares: Sequence[float], seconds: Sequence[Sequence[float]]) -> Line:
    """Through the medians at two shares; flat where both are one, as on maps of few positions."""
    (low, high), (fast, slow) = shares, (1000 * statistics.median(one) for one in seconds)
    slope = max(0.0, (slow - fast) / (high - low)) if high > low else 0.0
    return Line(fast - slope * low, slope)


def _seconds(compute: Callable[[], object], clock: Clock, wait: Callable[[], object]) -> float:
    return laps(lambda: [compute()], clock, wait)[-1]
