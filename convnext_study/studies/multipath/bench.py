"""How fast the two forms of the paths are on this machine: ``python -m`` this module prints it.

On the CPU one thread is used and its own time counted, not the wall's, which others share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from convnext_study.benchmarks.timing import Spread, interleave, one_thread, rate, ratio
from convnext_study.benchmarks.workload import wait
from convnext_study.studies.multipath.network import MultipathNet
from convnext_study.studies.multipath.paths import IMPLEMENTATIONS
from convnext_study.studies.multipath.spec import LARGE, LARGE_PATHS, SMALL, MultipathSpec


@dataclass(frozen=True)
class Speed:
    """Images a second of each form, and the ratio of fused to plain, over interleaved repeats."""

    images_per_s: dict[str, Spread]
    ratio: Spread


def compare_implementations(
    spec: MultipathSpec,
    *,
    train: bool,
    batch: int = 32,
    repeats: int = 8,
    channels_last: bool = True,
    device: str = "cpu",
) -> Speed:
    """Time forward, loss and backward, or forward alone, on random 32x32 images.

    ``channels_last`` is the layout in which the engine trains.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=layout)
    clock = time.process_time if device == "cpu" else None
    with one_thread():
        measures = {}
        for implementation in IMPLEMENTATIONS:
            net = MultipathNet(spec, implementation=implementation).train(train)
            net.to(device, memory_format=layout)  # type: ignore[call-overload]
            measures[implementation] = rate(_step(net, x), batch, 0.0, clock)
        found = interleave(measures, repeats)
    speeds = {implementation: Spread.of(rates) for implementation, rates in found.items()}
    return Speed(speeds, ratio(found["fused"], found["plain"]))


def _step(net: MultipathNet, x: torch.Tensor) -> Callable[[], None]:
    labels = torch.arange(len(x), device=x.device) % net.num_classes

    def train() -> None:
        net.zero_grad()
        F.cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]
        wait(x.device.type)

    @torch.inference_mode()
    def infer() -> None:
        net(x)
        wait(x.device.type)

    return train if net.training else infer


def main(repeats: int = 8) -> None:
    """Print a line for each network, job and batch: medians, and the ratio with its extremes."""
    print(f"{'network':12} {'job':6} {'batch':>5} {'plain':>8} {'fused':>8}  fused/plain")
    for name, spec in (("small", SMALL), ("large", LARGE), ("large_paths", LARGE_PATHS)):
        for job in ("train", "infer"):
            for batch in (1, 16):
                found = compare_implementations(
                    spec, train=job == "train", batch=batch, repeats=repeats
                )
                plain, fused = (found.images_per_s[one].median for one in ("plain", "fused"))
                line = f"{name:12} {job:6} {batch:5} {plain:8.1f} {fused:8.1f}  x {found.ratio}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
