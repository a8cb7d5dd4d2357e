"""How a study uses the machine it is on: device, trainings side by side, threads, readers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from convnext_study.errors import BadRequest
from convnext_study.training.task import Machine

SMALL_IMAGE = 64  # up to this side a second thread gains less than a second training


@dataclass(frozen=True)
class Plan:
    """``jobs`` trainings side by side, each with what ``machine`` says."""

    jobs: int
    machine: Machine


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(device: str | None) -> str:
    """The device that was asked for, or the best there is. Raises BadRequest where it is not."""
    if device in (None, "cpu") and not _gpu_in_sight():
        return "cpu"
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device is None:
        return next(name for name, found in there.items() if found)
    kind = device.partition(":")[0]
    if not there.get(kind, False):
        found = ", ".join(name for name, here in there.items() if here)
        raise BadRequest(f"device: {device!r} is not on this machine; there is {found}")
    return device


def _gpu_in_sight() -> bool:
    """Whether it is worth the seconds that asking torch for a GPU takes."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, either under WSL
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


def count_devices(device: str) -> int:
    """GPUs of that kind on this machine; the CPU is one device."""
    import torch

    return torch.cuda.device_count() if device == "cuda" else 1


def make_plan(
    machine: Machine,
    *,
    image_size: int,
    runs: int,
    device: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
) -> Plan:
    """Share the machine out among trainings, each with what else ``machine`` says.

    Tiny networks gain little from a second thread, so there are as many trainings as cores, with
    one thread each. Threads are chosen from the image size alone, never from how many run at a
    time: sums in another order round otherwise, and the same seed must give the same result.
    """
    chosen = pick_device(device)
    if threads is None:
        threads = 1 if image_size <= SMALL_IMAGE else cores()
    if jobs is None:
        jobs = max(cores() // threads, 1) if chosen == "cpu" else 1
    return Plan(min(jobs, max(runs, 1)), replace(machine, device=chosen, threads=threads))
