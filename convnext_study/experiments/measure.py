"""Estimates a study's time on this machine's CPU by timing steps of some of its networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convnext_study.models.builders import get_builder
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from convnext_study.experiments.estimate import CostEstimate

SECONDS = 0.5  # per network that is timed
TIMED = 5  # networks that are timed, from the fewest MACs to the most
PIXELS = 64 * 64 * 64  # of a timed batch: 64 images of the nano road, 5 of ImageNet's size


def seconds_per_run(
    runs: Sequence[Run], costs: Sequence[CostEstimate], classes: int, threads: int
) -> list[float] | None:
    """Seconds of training and evaluation for each run, on one CPU with that many threads.

    Networks are timed in training with random images, without reading data and without optimizer
    steps, so that the estimate is a little low. For networks that are not timed, the mean time per
    FLOP of the others is used. None if none can be timed: runs of other tasks, or runs that start
    from others.
    """
    networks: dict[str, tuple[Run, CostEstimate]] = {}
    for run, cost in zip(runs, costs, strict=True):
        if run.task.name == "classification" and run.init_from is None:
            networks.setdefault(_kind(run, cost), (run, cost))
    ordered = sorted(networks.items(), key=lambda item: item[1][1].macs)
    last = len(ordered) - 1
    some = {round(n * last / max(TIMED - 1, 1)) for n in range(TIMED)} if networks else ()
    rates = {ordered[n][0]: _seconds_per_flop(*ordered[n][1], classes, threads) for n in some}
    if not rates:
        return None
    mean_rate = statistics.fmean(rates.values())
    pairs = zip(runs, costs, strict=True)
    return [rates.get(_kind(run, cost), mean_rate) * cost.flops for run, cost in pairs]


def _kind(run: Run, cost: CostEstimate) -> str:
    return f"{run.model.model_dump_json()} {cost.image_size}"


def _seconds_per_flop(run: Run, cost: CostEstimate, classes: int, threads: int) -> float:
    """Forward and backward of one network, by the rule of estimates: 6 FLOPs per MAC and image."""
    import torch

    from convnext_study.models.fast_conv import use_gemm_convs

    options: dict[str, Any] = {"num_classes": classes, "drop_path": 0.0, "init": run.recipe["init"]}
    net = get_builder(run.model.builder)(run.model.args, **options).train()
    use_gemm_convs(net)
    net.to(memory_format=torch.channels_last)
    images = max(1, min(cost.micro_batch_size, PIXELS // cost.image_size**2))
    batch = torch.randn(max(images, 2), 3, cost.image_size, cost.image_size)
    batch = batch.contiguous(memory_format=torch.channels_last)
    labels, threads_before = torch.zeros(len(batch), dtype=torch.long), torch.get_num_threads()
    times: list[float] = []
    torch.set_num_threads(threads)
    try:
        while not times or sum(times[1:]) < SECONDS:
            start = time.perf_counter()
            torch.nn.functional.cross_entropy(net(batch), labels).backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads_before)
    return min(times) / (6.0 * cost.macs * len(batch))
