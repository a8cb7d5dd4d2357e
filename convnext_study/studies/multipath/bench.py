"""How fast the two forms of the paths are on this machine: ``python -m`` this module prints it.

Forms take turns, so that a machine that gets busier slows both. On the CPU one thread is used and
its own time counted, not the wall's, which others share.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from convnext_study.studies.multipath.network import MultipathNet
from convnext_study.studies.multipath.paths import IMPLEMENTATIONS
from convnext_study.studies.multipath.spec import LARGE, LARGE_PATHS, SMALL, MultipathSpec


@dataclass(frozen=True)
class Speed:
    """Images a second of each form (medians), and fused to plain (median over the rounds)."""

    images_per_s: dict[str, float]
    ratio: float


def compare_implementations(
    spec: MultipathSpec,
    *,
    train: bool,
    batch: int = 32,
    rounds: int = 8,
    channels_last: bool = True,
    device: str = "cpu",
) -> Speed:
    """Time forward, loss and backward, or forward alone, on random 32x32 images.

    ``channels_last`` is the layout in which the engine trains.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=layout)
    steps = {}
    for implementation in IMPLEMENTATIONS:
        net = MultipathNet(spec, implementation=implementation).train(train)
        net.to(device, memory_format=layout)  # type: ignore[call-overload]
        steps[implementation] = _step(net, x)
    times: dict[str, list[float]] = {implementation: [] for implementation in IMPLEMENTATIONS}
    with _one_thread():
        for turn in range(rounds + 1):  # the first is for warming up
            for implementation in IMPLEMENTATIONS[:: 1 if turn % 2 else -1]:
                seconds = _timed(steps[implementation], device)
                if turn:
                    times[implementation].append(seconds)
    ratios = [plain / fused for fused, plain in zip(times["fused"], times["plain"], strict=True)]
    speeds = {
        implementation: batch / statistics.median(taken) for implementation, taken in times.items()
    }
    return Speed(speeds, statistics.median(ratios))


def _step(net: MultipathNet, x: torch.Tensor) -> Callable[[], None]:
    labels = torch.arange(len(x), device=x.device) % net.num_classes

    def train() -> None:
        net.zero_grad()
        F.cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def infer() -> None:
        net(x)

    return train if net.training else infer


def _timed(step: Callable[[], None], device: str) -> float:
    if device == "cpu":
        begin = time.process_time()
        step()
        return time.process_time() - begin
    torch.accelerator.synchronize()
    begin = time.perf_counter()
    step()
    torch.accelerator.synchronize()
    return time.perf_counter() - begin


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(rounds: int = 8) -> None:
    """Print a line for each network, job and batch."""
    print(f"{'network':12} {'job':6} {'batch':>5} {'plain':>8} {'fused':>8}  fused/plain")
    for name, spec in (("small", SMALL), ("large", LARGE), ("large_paths", LARGE_PATHS)):
        for job in ("train", "infer"):
            for batch in (1, 16):
                found = compare_implementations(
                    spec, train=job == "train", batch=batch, rounds=rounds
                )
                plain, fused = found.images_per_s["plain"], found.images_per_s["fused"]
                line = f"{name:12} {job:6} {batch:5} {plain:8.1f} {fused:8.1f}  x{found.ratio:.2f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
