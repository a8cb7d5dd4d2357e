"""How long a study takes on this machine's CPU: steps of some of its networks are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convnext_study.models.builders import get_builder
from convnext_study.runs.records import Run

if TYPE_CHECKING:
    from convnext_study.experiments.estimate import CostEstimate

SECONDS = 0.5  # of each network that is timed
MOST = 5  # networks, of those with few MACs to those with many
PIXELS = 64 * 64 * 64  # of a batch that is timed: 64 images of the nano road, 5 of ImageNet's size


def seconds_per_run(
    runs: Sequence[Run], costs: Sequence[CostEstimate], classes: int, threads: int
) -> list[float] | None:
    """Seconds of training and evaluation for each run, on one CPU with so many threads.

    Networks are timed as they are trained, with random images; data is not read and the optimizer
    makes no step, so it is a little less than the truth. A network that was not timed takes per
    FLOP what those that were take on average. None where none can be: runs of other tasks, or from
    other runs.
    """
    kinds: dict[str, tuple[Run, CostEstimate]] = {}
    for run, cost in zip(runs, costs, strict=True):
        if run.task.name == "classification" and run.init_from is None:
            kinds.setdefault(_kind(run, cost), (run, cost))
    ordered = sorted(kinds.items(), key=lambda one: one[1][1].macs)
    some = {round(n * (len(ordered) - 1) / max(MOST - 1, 1)) for n in range(MOST)} if kinds else ()
    rates = {ordered[n][0]: _seconds_per_flop(*ordered[n][1], classes, threads) for n in some}
    if not rates:
        return None
    usual = statistics.fmean(rates.values())
    pairs = zip(runs, costs, strict=True)
    return [rates.get(_kind(run, cost), usual) * cost.flops for run, cost in pairs]


def _kind(run: Run, cost: CostEstimate) -> str:
    return f"{run.model.model_dump_json()} {cost.image_size}"


def _seconds_per_flop(run: Run, cost: CostEstimate, classes: int, threads: int) -> float:
    """Forward and backward of one network, by the rule of estimates: 6 FLOPs a MAC and image."""
    import torch

    from convnext_study.models.fast_conv import use_gemm_convs

    made: dict[str, Any] = {"num_classes": classes, "drop_path": 0.0, "init": run.recipe["init"]}
    net = get_builder(run.model.builder)(run.model.args, **made).train()
    use_gemm_convs(net)
    net.to(memory_format=torch.channels_last)
    images = max(1, min(cost.micro_batch_size, PIXELS // cost.image_size**2))
    batch = torch.randn(max(images, 2), 3, cost.image_size, cost.image_size)
    batch = batch.contiguous(memory_format=torch.channels_last)
    labels, before = torch.zeros(len(batch), dtype=torch.long), torch.get_num_threads()
    times: list[float] = []
    torch.set_num_threads(threads)
    try:
        while not times or sum(times[1:]) < SECONDS:
            began = time.perf_counter()
            torch.nn.functional.cross_entropy(net(batch), labels).backward()  # type: ignore[no-untyped-call]
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return min(times) / (6.0 * cost.macs * len(batch))
