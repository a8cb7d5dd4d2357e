"""The process that torchrun or srun starts, once for each rank: it trains jobs and leaves.

``python -m convnext_study.launchers.worker JOBS.json [INDEX ...] [--while-locked FOLDER]``

It writes nothing but the records of its runs. Exit codes: 0 done, 1 failed, 2 bad request, 75
stopped with the state saved, or another process works on the run: start the same command again to
go on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    Busy,
    RunFailed,
    UserError,
)
from convnext_study.launchers.distributed_env import DistributedEnv, init_process_group, read_env
from convnext_study.launchers.serving import STOP_SIGNALS, note_signals
from convnext_study.runs.records import is_locked

if TYPE_CHECKING:
    from convnext_study.launchers.job import Job


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
    except Busy as error:
        if env.rank == 0:
            _say(job, f"busy: {error}")
        return EXIT_STOPPED
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
    # Before the slow imports: a start may be cut short, too.
    note_signals((*STOP_SIGNALS, signal.SIGUSR1), asked)
    parser = argparse.ArgumentParser(prog="worker", description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=Path, help="a file of jobs")
    parser.add_argument("index", type=int, nargs="*", help="which; else the array's, else all")
    parser.add_argument("--while-locked", type=Path, help="stop when no process locks this folder")
    given = parser.parse_args(arguments)
    from convnext_study.launchers.job import read_jobs

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
