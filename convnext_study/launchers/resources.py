"""How a study uses a machine: devices, parallel trainings, threads, workers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from convnext_study.errors import UserError
from convnext_study.training.runtime import Runtime

SMALL_IMAGE = 64  # up to this side, a second training gains more than a second thread
MAX_READERS = 16  # more processes do not read faster for one GPU, and each takes memory


@dataclass(frozen=True)
class Resources:
    """``jobs`` parallel trainings, each with the settings of ``runtime``.

    ``devices`` are divided among them, if there are several.
    """

    jobs: int
    runtime: Runtime
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how runs are trained; None means chosen automatically. For fields that are not
    listed see `Runtime`.

    Args:
        launcher: ``local``, ``torchrun`` (DDP on this machine) or ``slurm``.
        processes: that share each run, with torchrun.
        cluster: the site's file, with slurm.
        wait: wait until the jobs have ended, with slurm.
        jobs: parallel trainings.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dry_run: train and download nothing; print batch scripts.
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

    def runtime(self, **overrides: Any) -> Runtime:
        """The settings of each training, with ``overrides``."""
        names = {f.name for f in fields(self)} & {f.name for f in fields(Runtime)}
        return Runtime(**{**{name: getattr(self, name) for name in names}, **overrides})


@dataclass(frozen=True)
class Node:
    """A machine that trains: its cores, and its devices, all of one kind."""

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
    """The requested device, or the best available one. Raises UserError if it is missing."""
    if device in (None, "cpu") and not _may_have_gpu():
        return "cpu"
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device is None:
        return next(name for name, names in available.items() if names)
    kind = device.partition(":")[0]
    if not available.get(kind, False):
        names = ", ".join(name for name, exists in available.items() if exists)
        raise UserError(f"device: {device!r} is not available on this machine; use {names}")
    if kind != "cuda" and device != kind:
        raise UserError(f"device: {device!r}; use {kind}, there is only one")
    if kind == "cuda" and device != kind:
        count, index = torch.cuda.device_count(), device.partition(":")[2]
        if not index.isdecimal() or int(index) >= count:
            raise UserError(f"device: {device!r}; the GPUs here are cuda:0 to cuda:{count - 1}")
    return device


def _may_have_gpu() -> bool:
    """Whether there may be a GPU, so that it is worth importing torch, which takes seconds."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, either under WSL
    return sys.platform != "linux" or any(Path(driver).exists() for driver in drivers)


def this_node(device: str | None = None) -> Node:
    """This machine with the requested device, or with all devices of the best available kind."""
    kind, count = pick_device(device), 1
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count()
    return Node(cores(), (kind,) if count == 1 else tuple(f"cuda:{n}" for n in range(count)))


def choose_resources(
    machine: Machine,
    *,
    image_size: int,
    runs: int,
    from_files: bool = False,
    node: Node | None = None,
    processes: int = 1,
) -> Resources:
    """Divide a machine among trainings.

    One training per GPU. On a CPU, where tiny networks gain little from a second thread, one per
    core, with one thread each. The threads there depend only on the image size, never on how many
    trainings run at a time: they change the order of sums and so their rounding, and the same seed
    must give the same result.

    Args:
        machine: the user's choices.
        image_size: side of the largest images, in pixels.
        runs: the number of runs to train.
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
    """The number of reader processes for a process with ``share`` cores and a GPU."""
    return min(max(share - 1, 1), MAX_READERS)
