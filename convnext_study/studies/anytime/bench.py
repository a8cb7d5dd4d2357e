"""How much time skipping saves, for ``convnext-study bench --parts anytime``.

Three forms of one network take turns, so that other load on the machine slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_study.benchmarks import Settings
from convnext_study.benchmarks.timing import Spread, interleave, ratio, show, wait
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits, percent
from convnext_study.studies.anytime.layer_cost import exit_macs
from convnext_study.studies.anytime.network import AnytimeNet
from convnext_study.studies.anytime.skipping.accelerate import accelerated
from convnext_study.studies.anytime.skipping.compiled import build_name
from convnext_study.studies.anytime.spec import AnytimeSpec

TITLE = "skipping: up to the last exit of networks with redesigned heads and masks"
NOTES = (
    "dense: without masks, with torch; masked: everything is computed, then masked, as in the "
    "authors' code; skipped: masked positions are not computed, on the CPU with compiled kernels "
    "if there is a C++ compiler. Medians; masks are coherent random regions, the same for all "
    "exits; BatchNorms are folded.",
    "time left: skipped relative to dense. pays from: the share of skipped positions from which "
    "this is below 1, interpolated linearly between measured shares.",
)
FORMS = ("dense", "masked", "skipped")
NETWORKS = ("hrnet_digits", "hrnet_w18_small_v2")
SKIPPED = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
QUICK = (0.5, 0.9)
Clock = Callable[[], float]
SIZES = {"hrnet_w18_small_v2": (512, 1024), "hrnet_w48": (512, 1024)}
SMALL_SIZE = (128, 128)  # of the embedded data
CLASSES = 19

REGION = 16  # side of a random mask's regions, in positions of the largest map

Row = dict[str, Any]


def measure(settings: Settings, report: Callable[[str], None]) -> list[Row]:
    """The rows of ``convnext-study bench --parts anytime``, one per network and share.

    By default of the embedded network and the authors' smaller one; with one CPU thread, of its
    processor time. Raises SpecError for a network that cannot be built.
    """
    own_time = settings.device == "cpu" and settings.threads == 1
    names = settings.networks or NETWORKS[: 1 if settings.quick else None]
    kernels = build_name() if settings.device == "cpu" else None
    results = []
    for name in names:
        size = settings.image_size or SIZES.get(name, SMALL_SIZE)
        net = AnytimeNet(AnytimeSpec(backbone=name, masks="confidence"), num_classes=CLASSES)
        x = torch.randn(settings.batch_size or 1, net.in_chans, *size, device=settings.device)
        clock = time.process_time if own_time else time.perf_counter
        shares = QUICK if settings.quick else SKIPPED
        common = {"network": name, "image_size": list(size), "batch": len(x), "kernels": kernels}
        common["clock"] = "process" if own_time else "wall"
        rows = []
        for row in compare(net, x, shares, settings.repeats, clock):
            report(f"{name}, {row['skipped']:.0%} skipped")
            rows.append(common | row)
        results += [row | {"pays_from": pays_from(rows)} for row in rows]
    return results


def compare(
    net: AnytimeNet, x: torch.Tensor, shares: Sequence[float], repeats: int, clock: Clock
) -> Iterator[Row]:
    """Time every exit of a masked network on images at each share of skipped positions.

    A row's values are per exit: ``milliseconds`` by form, medians; ``time_left``, skipped over
    dense, turn by turn; ``macs_left``, MACs by the authors' rule over the dense network's. Raises
    ValueError for a network without masks.
    """
    if not net.segments:
        raise ValueError("the network has no masks, so nothing can be skipped")
    x = x.to(memory_format=torch.channels_last)
    unmasked = AnytimeNet(
        net.spec.replace(masks="none", random_shares=[]), num_classes=net.num_classes
    )
    forms = {
        "dense": accelerated(unmasked, skip=False).to(x.device),
        "masked": accelerated(net, skip=False).to(x.device),
        "skipped": accelerated(net).to(x.device),
    }
    layers = net.layer_costs((x.shape[1], x.shape[2], x.shape[3]))
    dense_macs = exit_macs(layers)
    for share in shares:
        with torch.inference_mode():
            height, width = next(forms["dense"].run(x)).logits.shape[-2:]
            mask = coherent_mask(1 - share, (height, width), len(x)).to(x.device)
            masks = [mask] * (len(layers) - 1)
            runs = {
                name: partial(laps, partial(form.run, x, masks), clock, x.device)
                for name, form in forms.items()
            }
            for run in runs.values():
                run()
            turns = interleave(runs, repeats)
        times = {name: list(zip(*turn, strict=True)) for name, turn in turns.items()}
        macs_left = exit_macs(layers, [None, *masks])
        yield {
            "skipped": share,
            "milliseconds": {
                name: [1000 * Spread.of(exit).median for exit in exits]
                for name, exits in times.items()
            },
            "time_left": [
                ratio(*pair).to_dict()
                for pair in zip(times["skipped"], times["dense"], strict=True)
            ],
            "macs_left": [macs / full for macs, full in zip(macs_left, dense_macs, strict=True)],
        }


def laps(
    run: Callable[[], Iterable[object]], clock: Clock, device: torch.device | None = None
) -> list[float]:
    """Seconds from the start of ``run``, which is called once, to each of the items that it yields.

    With `time.process_time` as ``clock`` other processes do not count; the clock is read once the
    ``device`` is done.
    """
    device_type = "cpu" if device is None else device.type
    wait(device_type)
    start = clock()
    seconds: list[float] = []
    for _ in run():
        wait(device_type)
        seconds.append(clock() - start)
    return seconds


def coherent_mask(share: float, size: tuple[int, int], count: int = 1) -> Tensor:
    """A random mask (count, 1, h, w) whose computed positions form regions, as in real masks.

    ``share`` of positions of each image are computed; at least one, unless it is 0.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = [max(2, side // REGION) for side in size]
    noise = F.interpolate(torch.randn(count, 1, *coarse, generator=generator), size, mode="bicubic")
    ranks = noise.flatten(1).argsort(dim=1).argsort(dim=1)
    n_computed = max(1, round(share * ranks.shape[1])) if share > 0 else 0
    return (ranks < n_computed).view(count, 1, *size)


def pays_from(rows: Sequence[Row]) -> float | None:
    """The share of skipped positions from which the last exit is faster than without masks.

    Interpolated linearly between the measured shares; None if it never is.
    """
    excess = sorted((row["skipped"], row["time_left"][-1]["median"] - 1) for row in rows)
    if excess[0][1] <= 0:
        return float(excess[0][0])
    for (low, before), (high, after) in pairwise(excess):
        if after <= 0:
            return float(low + (high - low) * before / (before - after))
    return None


def table(rows: Sequence[Row]) -> Table[Row]:
    """The measurements of the last exit."""

    def last(row: Row, form: str) -> float:
        return float(row["milliseconds"][form][-1])

    columns: list[Column[Row]] = [
        Column("network", "network", lambda row: row["network"], "text"),
        Column("image", "image", lambda row: "x".join(map(str, row["image_size"])), "text"),
        Column("batch", "batch", lambda row: row["batch"], format=count),
        Column("skipped", "share skipped", lambda row: row["skipped"], format=percent),
        *(
            Column(f"{form}_ms", f"{form}, ms", partial(last, form=form), format=digits(1))
            for form in FORMS
        ),
        Column("time_left", "time left", lambda row: row["time_left"][-1], format=show),
        Column("macs_left", "MACs left", lambda row: row["macs_left"][-1], format=digits(2)),
        Column(
            "pays_from",
            "pays from",
            lambda row: row["pays_from"],
            cell=lambda row: "never" if row["pays_from"] is None else percent(row["pays_from"]),
        ),
    ]
    kernels = {f"kernels: {row['kernels'] or 'none'}." for row in rows}
    return Table("anytime", TITLE, columns, rows, (*NOTES, *kernels))
