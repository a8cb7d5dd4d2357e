"""A table of the engine's images/s from JPEG files, by readers, beside the same without reading.

    PYTHONPATH=tests python -m gpu.feed [cuda|cpu]

The last column is the share of the resident step's speed: well below 1, readers starve the device.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu.device import device_of
from gpu.steps import LAST, Bench, Setup

from convnext_study.benchmarks.pipeline import write_jpegs
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import get_roadmap
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime


def write_many(root: Path, files: int, copies: int) -> None:
    """Made-up photographs of 500x375, each under so many names."""
    write_jpegs(root, files)
    for path in list(root.rglob("*.jpg")):
        for number in range(1, copies):
            os.link(path, path.with_name(f"{number}-{path.name}"))


def measure(root: Path, bench: Bench, workers: int, **fields: Any) -> tuple[float, float]:
    """The engine's images/s while it trains an epoch, and the seconds of all."""
    road = get_roadmap("t")
    changes = {"epochs": 1, "global_batch_size": bench.batch, "image_size": bench.side, **fields}
    (run,) = roadmap_runs(
        road, [road.variant(LAST)], data=f"folder:{root}", seeds=[0], changes=changes
    )
    machine = Runtime(device=bench.device, workers=workers, threads=4 if bench.on_gpu else 1)
    out, began = Path(tempfile.mkdtemp()), time.perf_counter()
    try:
        result = train(run, out / "run", machine)
    finally:
        shutil.rmtree(out)
    return result.images_per_s, time.perf_counter() - began


def main(arguments: list[str]) -> int:
    """0, once the table is printed."""
    bench = Bench(device_of(arguments))
    resident = float(bench.measure(Setup(LAST, "bf16")).split()[0])
    print(f"{LAST}, bf16, batch {bench.batch} of {bench.side}: {resident:.0f} images/s, resident")
    print(f"{'recipe':10s} {'readers':>7s} {'images/s':>9s} {'epoch s':>8s} {'of resident':>12s}")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    root = Path(tempfile.mkdtemp(dir=memory))
    plain = {"rand_augment": "", "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        write_many(root, 1024 if bench.on_gpu else 16, 16 if bench.on_gpu else 2)
        most = max((cores or 2) - 2, 1)
        for workers in sorted({most, most // 2, 1} if bench.on_gpu else {1}, reverse=True):
            for name, fields in (("modern", {}), ("crop, flip", plain)):
                speed, seconds = measure(root, bench, workers, precision="bf16", **fields)
                share = speed / resident
                line = f"{name:10s} {workers:7d} {speed:9.0f} {seconds:8.1f} {share:12.2f}"
                print(line, flush=True)
    finally:
        shutil.rmtree(root)
    if bench.on_gpu:
        print(f"{torch.cuda.get_device_name()}, {cores} cores, torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
