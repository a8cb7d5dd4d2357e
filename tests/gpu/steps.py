"""A table of training steps on a resident batch: images/s and peak memory.

    PYTHONPATH=tests python -m gpu.steps [cuda|cpu] [SECONDS]

Rows of the road map of ConvNeXt-T by layout, precision, TF32, cuDNN's own choice and `compile`. No
image is read and none is augmented. It ends after SECONDS (540), saying what it left out.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from gpu.device import device_of

from convnext_study.benchmarks.timing import rate, wait
from convnext_study.models.roadmap_net import RoadmapNet
from convnext_study.roadmap import get_roadmap
from convnext_study.training.outcome import peak_memory, reset_peak
from convnext_study.training.state import autocast_of

ROWS = ("separate_downsampling", "resnet", "kernel_7", "layer_norm")
LAST = ROWS[0]


@dataclass(frozen=True)
class Setup:
    """One line of the table."""

    row: str
    precision: str
    channels_last: bool = True
    compiled: bool = False
    tf32: bool = False
    benchmark: bool = False

    def words(self) -> str:
        switches = {
            "last" if self.channels_last else "first": True,
            "compiled": self.compiled,
            "tf32": self.tf32,
            "cudnn.benchmark": self.benchmark,
        }
        shown = " ".join(name for name, on in switches.items() if on)
        return f"{self.row:22s} {self.precision:8s} {shown:32s}"


def setups(rows: tuple[str, ...]) -> list[Setup]:
    """The most wanted first."""
    grid = [
        Setup(row, precision, layout)
        for row in rows
        for precision in ("float32", "bf16")
        for layout in (True, False)
    ]
    grid += [Setup(row, "bf16", benchmark=True) for row in rows]
    grid += [Setup(LAST, "float32", tf32=True), Setup(LAST, "float32", tf32=True, benchmark=True)]
    return grid + [Setup(row, "bf16", compiled=True) for row in rows]


class Bench:
    """Measures on a device, with batches and images that suit it."""

    def __init__(self, device: str) -> None:
        self.device, self.on_gpu = device, device.startswith("cuda")
        self.batch, self.side, self.seconds = (256, 224, 2.0) if self.on_gpu else (4, 64, 0.0)

    def measure(self, setup: Setup) -> tuple[float, int | None]:
        """Images/s, and bytes at the peak."""
        torch.compiler.reset()
        torch.backends.cudnn.benchmark = setup.benchmark
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = setup.tf32
        layout: Any = torch.channels_last if setup.channels_last else torch.contiguous_format
        net: Any = RoadmapNet(get_roadmap("t").variant(setup.row).spec, drop_path_rate=0.1)
        net = net.to(self.device, memory_format=layout).train()
        images = torch.randn(self.batch, 3, self.side, self.side, device=self.device)
        images = images.to(memory_format=layout)
        labels = torch.arange(self.batch, device=self.device) % 1000
        optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        forward = torch.compile(net) if setup.compiled else net
        reset_peak(self.device)

        def step() -> None:
            with autocast_of(setup.precision, self.device):
                loss = F.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            wait(self.device)

        return rate(step, self.batch, self.seconds)(), peak_memory(self.device)


def main(arguments: list[str]) -> int:
    """1 where a line could not be measured for another reason than time."""
    bench = Bench(device_of(arguments))
    budget = float(arguments[1]) if len(arguments) > 1 else 540.0
    grid, began, failed = setups(ROWS if bench.on_gpu else (LAST,)), time.monotonic(), 0
    name = torch.cuda.get_device_name() if bench.on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}, batch {bench.batch} of {bench.side}x{bench.side}")
    print(f"{'row':22s} {'precision':8s} {'layout and switches':32s}  images/s  peak GB")
    for place, setup in enumerate(grid):
        if time.monotonic() - began > budget:
            print(f"out of time: {len(grid) - place} lines left out, from {setup.words()} on")
            break
        try:
            speed, peak = bench.measure(setup)
            print(f"{setup.words()} {speed:9.0f} {(peak or 0) / 1e9:8.1f}", flush=True)
        except Exception as error:
            failed = 1
            print(f"{setup.words()} {type(error).__name__}: {str(error).splitlines()[0][:90]}")
        if bench.on_gpu:
            torch.cuda.empty_cache()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
