"""Runs shared by several gloo processes of this machine."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

from convnext_study.runs.records import Run

_CODE = """
    import sys
    import torch.distributed as dist
    from pathlib import Path
    from convnext_study.runs.records import Run
    from convnext_study.training.loop import TrainingInterrupted, train
    from convnext_study.training.runtime import Runtime
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    run, folder, steps = Run.model_validate_json(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    count = iter(range(1, 10**6))
    # Only one of them is asked to stop: the others must follow.
    stop = lambda: rank == 0 and steps != "all" and next(count) >= int(steps)
    {before}
    try:
        train(run, folder, Runtime(rank=rank, world_size=world), stop=stop)
    except TrainingInterrupted:
        pass
    dist.destroy_process_group()
"""


def train_in(
    world_size: int, run: Run, folder: Path, steps: int | None = None, before: str = ""
) -> list[tuple[int, str]]:
    """Train to the end or for so many steps; ``before`` is Python that each process runs first.

    Returns each process's exit code and what it wrote to standard error.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    code = textwrap.dedent(_CODE).format(before=textwrap.dedent(before).strip())
    arguments = [run.model_dump_json(), str(folder), str(steps or "all")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    ended = []
    for process in processes:
        _, errors = process.communicate(timeout=180)
        ended.append((process.returncode, errors))
    return ended


def train_well_in(world_size: int, run: Run, folder: Path, steps: int | None = None) -> None:
    """As `train_in`, and every process ends well."""
    for code, errors in train_in(world_size, run, folder, steps):
        assert code == 0, errors
