"""The processes that train: one per rank of torchrun or srun, and those of the local pool.

``python -m convnext_study.launchers.worker JOBS.json [INDEX] [--while-locked FOLDER]``

It writes nothing but the records of its runs. Exit codes: 0 done, 1 failed, 2 bad request, 75
stopped with the state saved, or another process works on the run: start the same command again to
go on."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.data import forkserver
from convnext_study.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    Busy,
    RunFailed,
    UserError,
    first_line,
)
from convnext_study.runs.records import is_locked

if TYPE_CHECKING:
    from ctypes import c_byte

    from convnext_study.launchers.graph import Job


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOPBACK = "127.0.0.1"
# How long a process waits for the others. They may write a checkpoint to a slow disk, compile or
# list a large folder; more than that is a hang.
PATIENCE = timedelta(minutes=20)


def record_signals(numbers: Iterable[int], received: list[int]) -> dict[int, Any]:
    """Install handlers that add signals' numbers to ``received``. Returns the previous handlers.

    A handler may interrupt anything, so it only records the signal; output to a terminal that has
    been closed is discarded, so that later prints do not fail. Under ``nohup`` a closed terminal
    is no reason to stop, and SIGHUP stays ignored.
    """
    terminals = [output for output in (1, 2) if os.isatty(output)]

    def note(number: int, _: object) -> None:
        received.append(number)
        for output in terminals:
            if not os.isatty(output):
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)

    return {
        number: signal.signal(number, note)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }


@contextlib.contextmanager
def recorded_signals() -> Iterator[list[int]]:
    """The stop signals received during the block, which by themselves end nothing."""
    received: list[int] = []
    handlers = record_signals(STOP_SIGNALS, received)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def serve(pipe: Connection, stop: c_byte) -> None:
    """Train jobs from ``pipe`` and send back how they ended. Every run stops when ``stop``, a byte
    that all processes share, is 1."""
    received: list[int] = []
    # Ctrl-C reaches every process of a terminal; the parent passes it on as `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    record_signals((signal.SIGTERM, signal.SIGHUP), received)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    parent, server = multiprocessing.parent_process(), os.getppid()

    def should_stop() -> bool:
        # The parent was killed, or the fork server that reports this process's end to it.
        orphan = os.getppid() != server or not (parent and parent.is_alive())
        return bool(received) or bool(stop.value) or orphan

    leaves = False
    while not leaves:
        try:
            job: Job = pipe.recv()
        except (EOFError, OSError):
            return
        status, reason, _ = train_job(job, should_stop)
        leaves = status == "failed" and is_broken(job.runtime.device)
        try:
            pipe.send((status, reason, leaves))
        except OSError:
            return


def is_broken(device: str) -> bool:
    """Whether this process can no longer use its GPU, as after some CUDA errors."""
    if not device.startswith("cuda"):
        return False
    import torch

    try:
        torch.cuda.synchronize(device)
    except (RuntimeError, AssertionError):  # the latter if torch was built without CUDA
        return True
    return False


def use_device(device: str) -> None:
    """Make a GPU the default of this process, for code that names none."""
    if device.startswith("cuda:"):
        import torch

        torch.cuda.set_device(device)


def train_job(job: Job, stop: Callable[[], bool]) -> tuple[str, str, Exception | None]:
    """Train one job in this process. Returns its status, a reason or warnings, and any error."""
    from convnext_study.runs.wandb import mirrored
    from convnext_study.training.loop import TrainingInterrupted, train

    notes: list[str] = []
    try:
        use_device(job.runtime.device)
        with mirrored(job.run, job.folder, job.wandb, notes.append):
            train(job.run, job.folder, job.runtime, stop=stop)
    except TrainingInterrupted:
        return "stopped", "", None
    except Busy as error:
        return "busy", str(error), error
    except Exception as error:
        return "failed", first_line(error), error
    return "done", "; ".join(notes), None


def work(job: Job, env: DistributedEnv, device: str, stop: Callable[[], bool]) -> int:
    """Train one job with the other processes of the run. Returns an exit code."""
    from convnext_study.training.distributed import barrier

    runtime = replace(job.runtime, device=device, rank=env.rank, world_size=env.world_size)
    own_job = replace(job, runtime=runtime, wandb="off" if env.rank else job.wandb)
    status, reason, error = train_job(own_job, stop)
    if status == "failed":
        if not isinstance(error, UserError | RunFailed):
            traceback.print_exception(error)
        _say(job, f"failed: {reason}")
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    if status == "busy":
        if env.rank == 0:
            _say(job, f"busy: {reason}")
        return EXIT_STOPPED
    if reason:
        _say(job, reason)
    # When the first process leaves, its launcher ends the others, even while they write.
    barrier()
    return EXIT_STOPPED if status == "stopped" else EXIT_DONE


def _say(job: Job, text: str) -> None:
    print(f"convnext-study: {job.run.id}: {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one job of a file."""
    received: list[int] = []
    # Before the slow imports, during which a signal may come, too.
    record_signals((*STOP_SIGNALS, signal.SIGUSR1), received)
    parser = argparse.ArgumentParser(prog="worker", description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=Path, help="a file of jobs")
    parser.add_argument("index", type=int, nargs="?", help="else the array's, or 0")
    parser.add_argument("--while-locked", type=Path, help="stop when no process locks this folder")
    args = parser.parse_args(arguments)
    from convnext_study.launchers.graph import read_jobs

    def stop() -> bool:
        return bool(received) or bool(args.while_locked and not is_locked(args.while_locked))

    env = read_env(os.environ)
    try:
        jobs = read_jobs(args.jobs)
        # A single job is no array, though it may have been submitted from within one.
        array = os.environ.get("SLURM_ARRAY_TASK_ID", 0) if len(jobs) > 1 else 0
        index = int(array) if args.index is None else args.index
        if not 0 <= index < len(jobs):
            raise UserError(f"job {index} of {args.jobs}: does not exist")
        job = jobs[index]
        if job.runtime.workers:
            forkserver.start(forkserver.READERS)  # imports while this process does
        device = init_process_group(env, job.runtime.device)
    except (UserError, RunFailed) as error:
        print(f"convnext-study: worker: failed: {error}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILED
    return work(job, env, device, stop)


@dataclass(frozen=True)
class DistributedEnv:
    """This process's ``rank`` of ``world_size``, its ``local_rank`` on its node, and where the
    processes meet.

    ``address`` and ``port`` are those of rank 0; empty and 0 if there is one process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0


def read_env(environment: Mapping[str, str]) -> DistributedEnv:
    """This process's place in its run, from the variables of torchrun or srun.

    torchrun has precedence: it may have been started inside a SLURM job. A batch script has
    SLURM's variables too; only those of a step show that srun started this process.
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
    one_node = get("SLURM_STEP_NUM_NODES", "1") == "1"
    return DistributedEnv(
        rank=int(environment["SLURM_PROCID"]),
        world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        address=LOOPBACK if one_node else first_host(environment["SLURM_STEP_NODELIST"]),
        # Two jobs on one node must have different ports, as must two starts of a job.
        port=10000 + (7 * int(environment["SLURM_JOB_ID"]) + restarts) % 20000,
    )


def first_host(nodes: str) -> str:
    """The first host in SLURM's compressed list: ``gpu[03-05,9],big1`` is ``gpu03``."""
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes).split(",")[0]


def init_process_group(env: DistributedEnv, device: str) -> str:
    """Connect to the other processes of the run. Returns this process's device.

    Raises RunFailed if there is no GPU for it, or the others do not connect.
    """
    import torch

    if env.world_size == 1:
        return device
    import torch.distributed as dist

    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise RunFailed(f"rank {env.rank}: no GPU is visible; check gpus in the cluster file")
        device = f"cuda:{env.local_rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    elif env.address == LOOPBACK and sys.platform == "linux":
        # A node's own name may not resolve, or resolve to a network behind a firewall.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = env.address, str(env.port)
    on_gpu = device.startswith("cuda")
    try:
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            rank=env.rank,
            world_size=env.world_size,
            timeout=PATIENCE,
            # Otherwise NCCL takes the GPU of a process from a tensor, and guesses it in a barrier.
            device_id=torch.device(device) if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise RunFailed(
            f"rank {env.rank}: could not connect to the other processes ({reason})"
        ) from error
    return device


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    sys.stdout.flush()
    if read_env(os.environ).world_size > 1:
        # Destroying a process group can wait forever for a rank that has died.
        os._exit(code)
    sys.exit(code)
