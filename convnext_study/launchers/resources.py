"""How a study uses a machine: devices, parallel trainings, threads, workers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from convnext_study.errors import UserError
from convnext_study.training.runtime import Runtime

SMALL_IMAGE = 64  # up to this side a second thread gains less than a second training
MOST_READERS = 16  # more processes than that read no faster for one GPU, and each takes memory


@dataclass(frozen=True)
class Resources:
    """``jobs`` parallel trainings, each with the settings of ``runtime``.

    ``devices`` are shared out among them, where there are several.
    """

    jobs: int
    runtime: Runtime
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where runs are trained, and how; None leaves it to be chosen. What `Runtime` has too is as
    there.

    Args:
        launcher: ``local``, ``torchrun`` (DDP on this machine) or ``slurm``.
        processes: that share each run, with torchrun.
        cluster: the site's file, with slurm.
        wait: follow the jobs to their end, with slurm.
        jobs: parallel trainings.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dry_run: nothing is trained or fetched, and batch scripts are printed.
    """

    download: bool = False
    corrupt_images: Literal["stop", "skip"] = "stop"
    launcher: str = "local"
    processes: int | None = None
    cluster: Path | None = None
    wait: bool = True
    jobs: int | None = None
    threads: int | None = None
    workers: int | None = None
    device: str | None = None
    micro_batch_size: int | None = None
    compile: bool = False
    channels_last: bool = True
    grad_checkpointing: bool = False
    deterministic: bool = False
    tf32: bool | None = None
    cudnn_benchmark: bool = False
    dry_run: bool = False

    def runtime(self, **chosen: Any) -> Runtime:
        """What it says of each training, with what is ``chosen`` for it."""
        names = {one.name for one in fields(self)} & {one.name for one in fields(Runtime)}
        return Runtime(**{**{name: getattr(self, name) for name in names}, **chosen})


@dataclass(frozen=True)
class Node:
    """Where trainings will run: its cores, and its devices, all of one kind."""

    cores: int
    devices: tuple[str, ...]

    @property
    def has_gpu(self) -> bool:
        """Whether the devices are GPUs."""
        return self.devices[0] != "cpu"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(device: str | None) -> str:
    """The requested device, or the best there is. Raises UserError where it is missing."""
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
        raise UserError(f"device: {device!r} is not on this machine; there is {found}")
    if kind != "cuda" and device != kind:
        raise UserError(f"device: {device!r}; use {kind}, of which there is one")
    if kind == "cuda" and device != kind:
        count, index = torch.cuda.device_count(), device.partition(":")[2]
        if not index.isdecimal() or int(index) >= count:
            raise UserError(f"device: {device!r}; the GPUs here are cuda:0 to cuda:{count - 1}")
    return device


def _gpu_in_sight() -> bool:
    """Whether it is worth the seconds that asking torch for a GPU takes."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, either under WSL
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


def this_node(device: str | None = None) -> Node:
    """This machine with the device that was requested, or with all of the best kind there is."""
    chosen, count = pick_device(device), 1
    if chosen == "cuda":
        import torch

        count = torch.cuda.device_count()
    return Node(cores(), (chosen,) if count == 1 else tuple(f"cuda:{n}" for n in range(count)))


def choose_resources(
    machine: Machine,
    *,
    image_size: int,
    runs: int,
    from_files: bool = False,
    node: Node | None = None,
    processes: int = 1,
) -> Resources:
    """Share a machine out among trainings.

    One training a GPU. On a CPU, where tiny networks gain little from a second thread, as many as
    cores, with one thread each. There threads are chosen from the image size alone, never from
    how many run at a time: sums in another order round otherwise, and the same seed must give the
    same result.

    Args:
        machine: what it must keep to.
        image_size: side of the largest images, in pixels.
        runs: how many there are to train.
        from_files: whether images are read, or transformed, one by one.
        node: where the trainings will run, if not here.
        processes: that share each run.
    """
    node = node or this_node(machine.device)
    threads, jobs, workers = machine.threads, machine.jobs, machine.workers
    if not node.has_gpu:
        threads = threads or (1 if image_size <= SMALL_IMAGE else node.cores)
        jobs = jobs or max(node.cores // threads, 1)
    jobs = min(jobs or len(node.devices), max(runs, 1))
    share = node.cores // (jobs * processes)
    if workers is None:
        workers = choose_workers(share) if node.has_gpu and from_files else 0
    if threads is None:
        threads = 1 if image_size <= SMALL_IMAGE else max(share - workers, 1)
    device = node.devices[0] if len(node.devices) == 1 else "cuda"
    runtime = machine.runtime(device=device, threads=threads, workers=workers)
    return Resources(jobs, runtime, node.devices if len(node.devices) > 1 else ())


def choose_workers(share: int) -> int:
    """Processes that read images for a process that has ``share`` cores and a GPU to feed."""
    return min(max(share - 1, 1), MOST_READERS)
