"""Whether readers keep the device busy, and what uint8 and pinned memory give its copies.

    PYTHONPATH=tests python -m gpu.feed [cuda|cpu]

The engine's images/s from JPEG files by readers; the last column is the share of the resident
step's speed: well below 1, readers starve the device.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu.device import device_of
from gpu.steps import LAST, Bench, Setup

from convnext_study.benchmarks.pipeline import write_jpegs
from convnext_study.benchmarks.timing import rate, wait
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.launchers.resources import cores
from convnext_study.roadmap import get_roadmap
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

PLAIN = {"rand_augment": "", "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}


def show_copies(bench: Bench) -> None:
    """Milliseconds of a batch's copy to the GPU."""
    floats = torch.rand(bench.batch, 3, bench.side, bench.side)
    floats = floats.contiguous(memory_format=torch.channels_last)
    pixels = (floats * 255).byte()
    for name, batch in (("float32", floats), ("uint8", pixels)):
        for memory, source in (("pageable", batch), ("pinned", batch.pin_memory())):

            def copy(source: torch.Tensor = source) -> None:
                source.to(bench.device, non_blocking=True)
                wait(bench.device)

            speed = rate(copy, bench.batch, bench.seconds)()
            print(f"{name} {memory:8s} {1e3 * bench.batch / speed:7.2f} ms, {speed:9.0f} images/s")


def write_many(root: Path, files: int, copies: int) -> None:
    """Made-up photographs of 500x375, each under so many names."""
    write_jpegs(root, files)
    for path in list(root.rglob("*.jpg")):
        for number in range(1, copies):
            os.link(path, path.with_name(f"{number}-{path.name}"))


def measure(root: Path, bench: Bench, workers: int, **fields: Any) -> tuple[float, float]:
    """The engine's images/s while it trains an epoch, and the seconds of all."""
    road, began = get_roadmap("t"), time.perf_counter()
    changes = {"epochs": 1, "global_batch_size": bench.batch, "image_size": bench.side, **fields}
    (run,) = roadmap_runs(
        road, [road.variant(LAST)], data=f"folder:{root}", seeds=[0], changes=changes
    )
    machine = Runtime(device=bench.device, workers=workers, threads=4 if bench.on_gpu else 1)
    with tempfile.TemporaryDirectory() as out:
        result = train(run, Path(out) / "run", machine)
    return result.images_per_s, time.perf_counter() - began


def main(arguments: list[str]) -> int:
    """0, once the tables are printed."""
    bench = Bench(device_of(arguments))
    if bench.on_gpu:
        print(f"{torch.cuda.get_device_name()}, {cores()} cores, torch {torch.__version__}")
        show_copies(bench)
    resident, _ = bench.measure(Setup(LAST, "bf16"))
    print(f"{LAST}, bf16, batch {bench.batch} of {bench.side}: {resident:.0f} images/s, resident")
    print(f"{'recipe':10s} {'readers':>7s} {'images/s':>9s} {'epoch s':>8s} {'of resident':>12s}")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    most = max(cores() - 2, 1)
    with tempfile.TemporaryDirectory(dir=memory) as root:
        write_many(Path(root), 1024 if bench.on_gpu else 16, 16 if bench.on_gpu else 2)
        for workers in sorted({most, most // 2, 1} if bench.on_gpu else {1}, reverse=True):
            for name, fields in (("modern", {}), ("crop, flip", PLAIN)):
                speed, seconds = measure(Path(root), bench, workers, precision="bf16", **fields)
                share = speed / resident
                line = f"{name:10s} {workers:7d} {speed:9.0f} {seconds:8.1f} {share:12.2f}"
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
