"""Runs shared by several gloo processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from convnext_study.runs.records import Run
from support.training import stop_after

# What is called first in a process is found there by its module's name, ``tests.FOLDER.FILE``.
if (_ROOT := str(Path(__file__).parents[2])) not in sys.path:
    sys.path.append(_ROOT)
# A server that has imported torch once, of which every process is a copy.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["convnext_study.training.loop", "convnext_study.training.tasks.classification", "timm.data"]
)
_SECONDS = 180

Before = Callable[[int], object]


def _work(
    env: dict[str, str], run: Run, starts: Sequence[tuple[Path, int | None]], before: Before
) -> None:
    import torch
    import torch.distributed as dist

    from convnext_study.training.loop import TrainingInterrupted, train
    from convnext_study.training.runtime import Runtime

    os.dup2(os.open(f"{env['ERRORS']}/{env['RANK']}", os.O_WRONLY | os.O_CREAT), 2)
    os.environ.update(env)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    before(rank)
    for folder, steps in starts:
        # Only one of them is asked to stop: the others must follow.
        stop = stop_after(steps) if steps and rank == 0 else bool
        with contextlib.suppress(TrainingInterrupted):
            train(run, folder, Runtime(rank=rank, world_size=world), stop=stop)
    dist.destroy_process_group()


def train_in(
    world_size: int, run: Run, *starts: tuple[Path, int | None], before: Before = bool
) -> list[tuple[int, str]]:
    """Train in each folder, to the end or for so many steps, one start after the other; ``before``
    is called first with the rank, in each process.

    Returns each process's exit code and what it wrote to standard error.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as errors:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ERRORS": errors}
        processes = []
        for rank in range(world_size):
            env = {**shared, "WORLD_SIZE": str(world_size), "RANK": str(rank)}
            arguments = (env, run, starts, before)
            processes.append(CONTEXT.Process(target=_work, args=arguments))
            processes[-1].start()
        for process in processes:
            process.join(_SECONDS)
            process.kill()
            process.join()
        said = [(Path(errors) / str(rank)).read_text() for rank in range(world_size)]
    codes = [process.exitcode for process in processes]
    return [(1 if code is None else code, text) for code, text in zip(codes, said, strict=True)]


def train_well_in(world_size: int, run: Run, *starts: tuple[Path, int | None]) -> None:
    """As `train_in`, and every process ends well."""
    for code, errors in train_in(world_size, run, *starts):
        assert code == 0, errors
