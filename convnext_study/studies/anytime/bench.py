"""How much time skipping saves: ``python -m convnext_study.studies.anytime.bench`` prints it.

Three forms of one network take turns, so that a machine that gets busier slows all of them: dense
(no masks at all), masked (everything is computed and then masked, as the authors' code does), and
skipped. All have their BatchNorms folded. Masks are random regions, and the same for every exit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from convnext_study.benchmarks.timing import Spread, interleave, laps, ratio
from convnext_study.studies.anytime.masks.cost import exit_macs
from convnext_study.studies.anytime.networks.network import AnytimeNet
from convnext_study.studies.anytime.published import published
from convnext_study.studies.anytime.skipping.accelerate import accelerated
from convnext_study.studies.anytime.skipping.measure import (
    Clock,
    coherent_mask,
    measure_table,
    waiter,
)
from convnext_study.studies.anytime.spec import AnytimeSpec

SKIPPED = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each network, share and form, and from which share skipping pays."""
    parser = argparse.ArgumentParser(description="Time of every exit, dense and skipped.")
    known = [one["timm"] for one in published()["backbone"].values()]
    parser.add_argument("--backbone", nargs="+", default=["hrnet_digits", known[-1]])
    parser.add_argument("--heads", default="flex")
    parser.add_argument("--skipped", type=float, nargs="+", default=list(SKIPPED))
    parser.add_argument("--size", type=int, nargs=2, help="height and width, in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    for backbone in asked.backbone:
        spec = AnytimeSpec(backbone=backbone, heads=asked.heads, masks="confidence")
        size = tuple(asked.size) if asked.size else SIZES.get(backbone, SMALL_SIZE)
        setting = Setting(size, asked.batch, asked.repeats, asked.device, asked.clock)
        print(f"{backbone}, {asked.batch} x {size[0]}x{size[1]}, {asked.threads} thread(s)")
        rows = []
        for row in compare(AnytimeNet(spec, num_classes=CLASSES), setting, asked.skipped):
            rows.append(row)
            print("\n".join(lines(row)), flush=True)
        share = pays_from(rows)
        print("  skipping " + ("never pays" if share is None else f"pays from {share:.0%} skipped"))


def lines(row: ShareTimes) -> list[str]:
    """A measurement as text: milliseconds to each exit, and what is left of time and MACs."""
    found = []
    for name, times in row.milliseconds.items():
        shown = " ".join(f"{one:8.1f}" for one in times)
        found.append(f"  {row.skipped:4.0%} skipped  {name:8} ms {shown}")
    found.append("                time left  " + "  ".join(map(str, row.time_left)))
    found.append("                MACs left  " + "  ".join(f"{one:.2f}" for one in row.macs_left))
    return found


if __name__ == "__main__":
    main()
