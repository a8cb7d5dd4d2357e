"""Killed twenty times at random moments, a training ends bit for bit like one that was not.

Run by `make endurance`. Children are forked from a process that has imported torch, so that a
kill costs a moment and not an import. The seeds of the moments are fixed; the moments are not,
since they fall where the machine happens to be.
"""

import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from support.images import make_folder
from support.runs import make_tiny_run
from support.toys import masked_run
from support.training import assert_same

from convnext_study.runs import records
from convnext_study.runs.files import LOG, RESULT
from convnext_study.runs.log import read_events
from convnext_study.runs.records import Run
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime

pytestmark = pytest.mark.endurance

KILLS = 20
FORK = multiprocessing.get_context("fork")


def starts(folder: Path) -> list[int]:
    """The steps from which the runs under a folder were begun or resumed, each time they were."""
    events = [event for path in sorted(folder.rglob(LOG)) for event in read_events(path.parent)]
    return [one["step"] for one in events if one["event"] in ("started", "resumed")]


def epochs_done(folder: Path) -> int:
    """Of all runs under a folder, by their logs."""
    return sum(path.read_text().count('"event": "epoch"') for path in folder.rglob(LOG))


def kill_until_done(start: Callable[[Path], list[Any]], root: Path, moments: random.Random) -> None:
    """Start processes and kill one of them at a random moment, until they end by themselves.

    They work in ``root / "killed"``, and ``root / "calm"`` holds the same, undisturbed. The kills
    are spread over four fifths of its epochs; one in four comes so soon after the start that the
    processes may still be about to meet.
    """
    folder, calm = root / "killed", root / "calm"
    results = [records.read(path.parent).result for path in calm.rglob(RESULT)]
    longest = min(0.8, sum(one.seconds for one in results if one) / KILLS)
    kills = 0
    while True:
        processes = start(folder)
        if kills < KILLS:
            goal = 4 * epochs_done(calm) * kills // (5 * KILLS) if kills % 4 else 0
            while epochs_done(folder) < goal and all(one.is_alive() for one in processes):
                time.sleep(0.01)
            time.sleep(moments.uniform(0, longest))
            victim = moments.choice(processes)
            if victim.is_alive():
                os.kill(victim.pid, signal.SIGKILL)
                kills += 1
                victim.join()  # until then it has no exit code that says so
        killed = any(process.exitcode == -signal.SIGKILL for process in processes)
        for process in processes:
            # What waits in vain for a killed partner is ended as a scheduler would end it.
            process.join(timeout=2 if killed else None)
            if process.is_alive():
                process.kill()
                process.join()
        if all(process.exitcode == 0 for process in processes):
            break
        assert killed, [process.exitcode for process in processes]
    assert kills == KILLS
    for path in calm.rglob(RESULT):
        resumed = folder / path.parent.relative_to(calm)
        assert max(starts(resumed)) > 0, starts(resumed)
        assert_same(resumed, path.parent)


def train_all(
    runs: Sequence[Run], folder: Path, runtime: Runtime, rank: int, world_size: int, port: int
) -> None:
    """One process's part of runs, one after the other."""
    if world_size > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
    for run in runs:
        train(run, folder / "runs" / run.id, replace(runtime, rank=rank, world_size=world_size))
    if world_size > 1:
        dist.destroy_process_group()


def start_all(runs: Sequence[Run], folder: Path, runtime: Runtime, world_size: int) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world_size):
        arguments = (runs, folder, runtime, rank, world_size, port)
        processes.append(FORK.Process(target=train_all, args=arguments))
        processes[-1].start()
    return processes


def endures(
    root: Path, seed: int, *runs: Run, world_size: int = 1, calm_workers: int = 0, **runtime: Any
) -> None:
    """Runs are trained in ``root / "calm"``, and in ``root / "killed"``, to the same bits."""
    settings = Runtime(**runtime)
    calm = replace(settings, workers=calm_workers)
    for process in start_all(runs, root / "calm", calm, world_size):
        process.join()
        assert process.exitcode == 0
    often = replace(settings, checkpoint_seconds=0.05)
    kill_until_done(
        lambda folder: start_all(runs, folder, often, world_size), root, random.Random(seed)
    )


@pytest.mark.parametrize("micro", [None, 32], ids=["plain", "split"])
def test_one_process(tmp_path: Path, micro: int | None) -> None:
    endures(tmp_path, 1, make_tiny_run(epochs=90), micro_batch_size=micro)


def of_files(root: Path, step: str, batch: int) -> Run:
    """A run on a folder of images, mixed."""
    data = make_folder(root / "images", count=24)
    changes = {"image_size": 32, "crop": "random_resized", "mixup": 0.8}
    run = make_tiny_run(step, epochs=60, global_batch_size=batch, **changes)
    return run.model_copy(update={"data": f"folder:{data}"})


def test_with_workers_that_read_files(tmp_path: Path) -> None:
    endures(tmp_path, 2, of_files(tmp_path, "layer_norm", 16), calm_workers=1, workers=2)


def test_two_processes(tmp_path: Path) -> None:
    endures(tmp_path, 3, make_tiny_run(epochs=60), world_size=2)


def test_three_processes_with_readers_and_batch_norm(tmp_path: Path) -> None:
    # Sums over three depend on their order, and BatchNorm's statistics on whose they are.
    endures(tmp_path, 4, of_files(tmp_path, "depthwise_conv", 12), world_size=3, workers=1)


def test_a_run_and_the_one_that_starts_from_it(tmp_path: Path) -> None:
    parent = make_tiny_run(epochs=45)
    endures(tmp_path, 5, parent, masked_run(parent))
