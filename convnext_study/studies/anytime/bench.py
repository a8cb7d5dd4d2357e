"""How much time skipping saves, for ``convnext-study bench --parts anytime``.

Three forms of one network take turns, so that a machine that gets busier slows all of them: dense
(no masks at all), masked (everything is computed and then masked, as the authors' code does), and
skipped. All have their BatchNorms folded. Masks are random regions, and the same for every exit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from convnext_study.benchmarks.networks import BatchRequest, Settings
from convnext_study.benchmarks.report import show
from convnext_study.benchmarks.timing import Spread, interleave, laps, ratio
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits, percent
from convnext_study.studies.anytime.masks.cost import exit_macs
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.skipping.accelerate import accelerated
from convnext_study.studies.anytime.skipping.measure import (
    Clock,
    coherent_mask,
    measure_table,
    waiter,
)
from convnext_study.studies.anytime.spec import AnytimeSpec

TITLE = "skipping: to the last exit of networks with redesigned heads and masks"
NOTES = (
    "dense: without masks; masked: everything computed and then masked, as the authors' code does; "
    "skipped: what the masks skip is not computed. Medians; masks of coherent random regions, the "
    "same for all exits; BatchNorms folded.",
    "time left: skipped over dense. pays from: the share of skipped positions from which that is "
    "under 1, on a line between the shares that were measured.",
)
FORMS = ("dense", "masked", "skipped")
NETWORKS = ("hrnet_digits", "hrnet_w18_small_v2")
SKIPPED = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
QUICK = (0.5, 0.9)
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "process": time.process_time}
SIZES = {"hrnet_w18_small_v2": (512, 1024), "hrnet_w48": (512, 1024)}
SMALL_SIZE = (64, 64)
CLASSES = 19


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        size: height and width of the images.
        batch: images at a time.
        repeats: turns of each form.
        device: where.
        clock: a name of `CLOCKS`; ``process`` counts this process alone, all its threads together,
            for a machine that others use too (with ``OMP_WAIT_POLICY=passive``).
    """

    size: tuple[int, int]
    batch: int = 1
    repeats: int = 7
    device: str = "cpu"
    clock: str = "wall"


@dataclass(frozen=True)
class ShareTimes:
    """One share of skipped positions, for each exit.

    Args:
        skipped: the share.
        milliseconds: by form (``dense``, ``masked``, ``skipped``), medians to each exit.
        time_left: skipped over dense, turn by turn.
        macs_left: what the authors' rule counts, over the dense network's.
    """

    skipped: float
    milliseconds: dict[str, list[float]]
    time_left: list[Spread]
    macs_left: list[float]


def compare(
    net: AnytimeNet, setting: Setting, shares: Sequence[float] = SKIPPED
) -> Iterator[ShareTimes]:
    """Time every exit of a masked network at each share of skipped positions, one after the other.

    Methods are chosen by a table that is measured first. Raises ValueError for a network without
    masks.
    """
    if not net.segments:
        raise ValueError("the network has no masks: nothing can be skipped")
    device = torch.device(setting.device)
    x = torch.randn(setting.batch, net.in_chans, *setting.size, device=device)
    x = x.to(memory_format=torch.channels_last)
    skipping = accelerated(net).to(device)
    measure_table(skipping, x, clock=CLOCKS[setting.clock])
    plain = AnytimeNet(
        net.spec.replace(masks="none", random_shares=[]), num_classes=net.num_classes
    )
    forms = {
        "dense": accelerated(plain, "dense").to(device),
        "masked": accelerated(net, "dense").to(device),
        "skipped": skipping,
    }
    layers = net.layer_costs((net.in_chans, *setting.size))
    for share in shares:
        yield _at_share(share, forms, x, layers, setting)


def pays_from(rows: Sequence[ShareTimes]) -> float | None:
    """The share of skipped positions from which the last exit comes sooner than without masks.

    On a straight line between the two shares around it; None if it never does.
    """
    excess = sorted((row.skipped, row.time_left[-1].median - 1) for row in rows)
    if excess[0][1] <= 0:
        return excess[0][0]
    for (low, above), (high, below) in pairwise(excess):
        if below <= 0:
            return low + (high - low) * above / (above - below)
    return None


def _at_share(
    skipped: float, forms: dict[str, AnytimeNet], x: torch.Tensor, layers: Any, setting: Setting
) -> ShareTimes:
    with torch.inference_mode():
        logits = next(forms["dense"].run(x)).logits
        size = (logits.shape[-2], logits.shape[-1])
        mask = coherent_mask(1 - skipped, size, len(x))
        masks = [mask.to(x.device)] * (len(layers) - 1)
        clock, wait = CLOCKS[setting.clock], waiter(x.device)
        runs = {
            name: partial(laps, partial(net.run, x, masks), clock, wait)
            for name, net in forms.items()
        }
        for run in runs.values():
            run()
        found = interleave(runs, setting.repeats)
    by_exit = {name: list(zip(*turns, strict=True)) for name, turns in found.items()}
    dense = exit_macs(layers)
    return ShareTimes(
        skipped=skipped,
        milliseconds={
            name: [1000 * Spread.of(times).median for times in exits]
            for name, exits in by_exit.items()
        },
        time_left=[ratio(*pair) for pair in zip(by_exit["skipped"], by_exit["dense"], strict=True)],
        macs_left=[
            left / all for left, all in zip(exit_macs(layers, [None, *masks]), dense, strict=True)
        ],
    )


def measure(
    requested: BatchRequest, settings: Settings, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """What ``convnext-study bench --parts anytime`` measures: a row for each network and share.

    By default the embedded network and the authors' smaller one; on a CPU with one thread that
    thread's own time. Raises SpecError for a network that cannot be built.
    """
    alone = settings.device == "cpu" and settings.threads == 1
    names = requested.networks or NETWORKS[: 1 if requested.quick else None]
    found = []
    for name in names:
        setting = Setting(
            requested.image_size or SIZES.get(name, SMALL_SIZE),
            requested.batch_size or 1,
            settings.repeats,
            settings.device,
            "process" if alone else "wall",
        )
        net = AnytimeNet(AnytimeSpec(backbone=name, masks="confidence"), num_classes=CLASSES)
        rows = []
        for row in compare(net, setting, QUICK if requested.quick else SKIPPED):
            report(f"{name}, {row.skipped:.0%} skipped")
            rows.append(row)
        share = pays_from(rows)
        found += [_plain(name, setting, row, share) for row in rows]
    return found


def table(rows: Sequence[dict[str, Any]]) -> Table[dict[str, Any]]:
    """What was measured, to the last exit."""

    def last(row: dict[str, Any], form: str) -> float:
        return float(row["milliseconds"][form][-1])

    columns: list[Column[dict[str, Any]]] = [
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
    return Table("anytime", TITLE, columns, rows, NOTES)


def _plain(name: str, setting: Setting, row: ShareTimes, share: float | None) -> dict[str, Any]:
    return {
        "network": name,
        "image_size": list(setting.size),
        "batch": setting.batch,
        "clock": setting.clock,
        "skipped": row.skipped,
        "milliseconds": row.milliseconds,
        "time_left": [spread.to_dict() for spread in row.time_left],
        "macs_left": row.macs_left,
        "pays_from": share,
    }
