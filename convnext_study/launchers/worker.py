"""The process that torchrun or srun starts, once for each rank: it trains jobs and leaves.

``python -m convnext_study.launchers.worker JOBS.json [INDEX ...] [--while-locked FOLDER]``

It writes nothing but the records of its runs. Exit codes: 0 done, 1 failed, 2 bad request, 75
stopped with the state saved: start the same command again to go on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    RunFailed,
    UserError,
)
from convnext_study.runs.files import write_json
from convnext_study.runs.records import Run, is_locked

if TYPE_CHECKING:
    from convnext_study.launchers.job import Job

LOOPBACK = "127.0.0.1"
# How long a process waits for the others. They may write a checkpoint to a slow disk, compile, list
# a large folder, or wait five minutes for a dead machine's lease; more than that is a hang.
PATIENCE = timedelta(minutes=20)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@dataclass(frozen=True)
class DistributedEnv:
    """Which process this is: ``rank`` of ``world_size``, ``local_rank`` on its node, and where to
    meet.

    ``address`` and ``port`` are those of rank 0; empty and 0 where there is one process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Jobs as JSON, their folders absolute: a process elsewhere may start in another folder."""
    write_json(
        path,
        [
            {
                "run": job.run.model_dump(mode="json"),
                "folder": str(job.folder.absolute()),
                "runtime": asdict(job.runtime),
                "wandb": job.wandb,
            }
            for job in jobs
        ],
    )


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a file that `write_jobs` wrote. Raises UserError, one line."""
    from convnext_study.launchers.job import Job
    from convnext_study.training.runtime import Runtime

    try:
        return [
            Job(
                Run.model_validate(one["run"]),
                Path(one["folder"]),
                Runtime(**one["runtime"]),
                one["wandb"],
            )
            for one in json.loads(path.read_text())
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable list of jobs ({reason})") from None


def read_env(environment: Mapping[str, str]) -> DistributedEnv:
    """This process among those of its run, from what torchrun or srun says.

    torchrun comes first: it may itself have been started inside a SLURM job. A batch script has
    SLURM's variables too; only those of a step say that srun started this process.
    """
    get = environment.get
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return DistributedEnv(
            rank=int(environment["RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_rank=int(get("LOCAL_RANK", "0")),
            address=get("MASTER_ADDR", LOOPBACK),
            port=int(get("MASTER_PORT", "29500")),
        )
    if "SLURM_STEP_NUM_TASKS" not in environment:
        return DistributedEnv()
    restarts = int(get("SLURM_RESTART_COUNT", "0"))
    alone = get("SLURM_STEP_NUM_NODES", "1") == "1"
    return DistributedEnv(
        rank=int(environment["SLURM_PROCID"]),
        world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        address=LOOPBACK if alone else first_host(environment["SLURM_STEP_NODELIST"]),
        # Two jobs on one node must not meet, nor a job its own earlier start.
        port=10000 + (7 * int(environment["SLURM_JOB_ID"]) + restarts) % 20000,
    )


def first_host(nodes: str) -> str:
    """The first name of SLURM's short form of a list: ``gpu[03-05,9],big1`` is ``gpu03``."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes).split(",")[0]


def init_process_group(env: DistributedEnv, device: str) -> str:
    """Meet the other processes of the run. Returns this process's device.

    Raises Failed where there is no GPU for it, or the others do not come.
    """
    import torch

    if env.world_size == 1:
        return device
    import torch.distributed as dist

    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise RunFailed(f"rank {env.rank}: no GPU is seen here; check the profile's gpus")
        device = f"cuda:{env.local_rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    elif env.address == LOOPBACK and sys.platform == "linux":
        # A node's own name may lead nowhere, or to a network that a firewall closes.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = env.address, str(env.port)
    on_gpu = device.startswith("cuda")
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            rank=env.rank,
            world_size=env.world_size,
            timeout=PATIENCE,
            # Without it NCCL learns a process's GPU from a tensor, and guesses in a barrier.
            device_id=torch.device(device) if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunFailed(f"rank {env.rank}: did not meet the other processes ({reason})") from error
    return device


def work(job: Job, env: DistributedEnv, device: str, stop: Callable[[], bool]) -> int:
    """Train one job with the other processes of the run. Returns an exit code."""
    from convnext_study.runs.wandb import mirrored
    from convnext_study.training.distributed import barrier
    from convnext_study.training.loop import TrainingInterrupted, train

    runtime = replace(job.runtime, device=device, rank=env.rank, world_size=env.world_size)
    mode = job.wandb if env.rank == 0 else "off"
    code = EXIT_DONE
    try:
        with mirrored(job.run, job.folder, mode, lambda note: _say(job, note)):
            train(job.run, job.folder, runtime, stop=stop)
    except TrainingInterrupted:
        code = EXIT_STOPPED
    except Exception as error:
        if not isinstance(error, UserError | RunFailed):
            traceback.print_exc()
        _say(job, f"failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    # The first process to leave makes its launcher end the others, whatever they are writing.
    barrier()
    return code


def _say(job: Job, text: str) -> None:
    print(f"convnext-study: {job.run.id}: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the chosen jobs one after another, up to the first that does not end well."""
    asked: list[int] = []
    for number in STOP_SIGNALS:  # before the slow imports: a start may be cut short, too
        signal.signal(number, lambda got, _: asked.append(got))
    parser = argparse.ArgumentParser(prog="worker", description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=Path, help="a file of jobs")
    parser.add_argument("index", type=int, nargs="*", help="which; else the array's, else all")
    parser.add_argument("--while-locked", type=Path, help="stop when no process locks this folder")
    given = parser.parse_args(arguments)

    def stop() -> bool:
        return bool(asked) or bool(given.while_locked and not is_locked(given.while_locked))

    env = read_env(os.environ)
    try:
        jobs = _choose(read_jobs(given.jobs), given.index, os.environ)
        device = init_process_group(env, jobs[0].runtime.device)
    except (UserError, RunFailed) as error:
        print(f"convnext-study: worker: failed: {error}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    code = EXIT_DONE
    for job in jobs:
        code = work(job, env, device, stop)
        if code != EXIT_DONE:
            break
    return code


def _choose(jobs: list[Job], indices: Sequence[int], environment: Mapping[str, Any]) -> list[Job]:
    chosen = list(indices)
    if not chosen and "SLURM_ARRAY_TASK_ID" in environment:
        chosen = [int(environment["SLURM_ARRAY_TASK_ID"])]
    chosen = chosen or list(range(len(jobs)))
    if not chosen or max(chosen) >= len(jobs) or min(chosen) < 0:
        raise UserError(f"job {max(chosen, default=0)} of {len(jobs)}: there is none")
    return [jobs[index] for index in chosen]


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    sys.stdout.flush()
    if read_env(os.environ).world_size > 1:
        # Taking a process group down can wait forever for a rank that has died.
        os._exit(code)
    sys.exit(code)
