"""Runs on this machine's devices with torchrun: several processes share each run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convnext_study.errors import UserError
from convnext_study.launchers import Launcher, make_folders
from convnext_study.launchers.graph import Job, Outcome, Schedule, write_jobs
from convnext_study.launchers.local import TICK
from convnext_study.launchers.resources import Resources, choose_resources, cores, this_node
from convnext_study.launchers.worker import recorded_signals
from convnext_study.runs import locks
from convnext_study.runs.files import LOCK, open_to_append, read_bytes
from convnext_study.runs.log import failure, read_events
from convnext_study.runs.records import is_done

WORKER = "convnext_study.launchers.worker"
LOG_FILE = "torchrun.log"  # beside the folder of the runs
# Seconds that torchrun, when terminated, gives its workers to save; the default of 30 is too short
# for a slow disk. Older versions of torch ignore it.
GRACE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}


class Torchrun(Launcher):
    """All devices of this machine train each run together."""

    name = "torchrun"
    own = ("processes",)

    def run(
        self, jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        """See `run_torchrun`."""
        make_folders(jobs)
        return run_torchrun(jobs, self.world_size(resources.devices), on_poll)

    def world_size(self, devices: Sequence[str]) -> int:
        """As requested, or one per device."""
        return self.machine.processes or max(len(devices), 1)

    def resources(self, **images: Any) -> Resources:
        """One training at a time, in several processes."""
        node = this_node(self.machine.device)
        images |= {"node": node, "processes": self.world_size(node.devices)}
        return choose_resources(replace(self.machine, jobs=1), **images)


def run_torchrun(
    jobs: Sequence[Job], processes: int, on_poll: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Train all jobs, one after another, each with ``processes`` processes on this machine.

    Runs that start from others come after them, and fail if they fail. SIGINT, SIGTERM and SIGHUP
    stop the run within a step, with its state saved; so does the end of this process, in any way.

    Raises UserError if there are too few devices.
    """
    _check(jobs, processes)
    outcomes: list[Outcome] = []
    schedule = Schedule([_shared(job, processes) for job in jobs])
    with recorded_signals() as stop:
        while not stop and (job := schedule.take()):
            outcomes += schedule.settle(_train(job, processes, stop, on_poll))
            on_poll()
    return outcomes + schedule.not_started()


def _check(jobs: Sequence[Job], processes: int) -> None:
    if processes < 1:
        raise UserError(f"processes: {processes}; use 1 or more")
    if any(job.runtime.device.startswith("cuda") for job in jobs):
        import torch

        if processes > (gpus := torch.cuda.device_count()):
            raise UserError(f"processes: {processes} on {gpus} GPUs; use at most one per GPU")


def _shared(job: Job, processes: int) -> Job:
    """The job with no more threads per process than its share of the cores."""
    threads = min(job.runtime.threads, max(cores() // processes, 1))
    return replace(job, runtime=replace(job.runtime, threads=threads))


def command(processes: int, jobs: Path) -> list[str]:
    """The command of torchrun and its workers, which stop when ``jobs``'s folder is not locked."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    worker = ["--module", WORKER, str(jobs), "0", "--while-locked", str(jobs.parent)]
    return [sys.executable, "-m", *launcher, *worker]


def _train(job: Job, processes: int, stop: list[int], on_poll: Callable[[], None]) -> Outcome:
    """Run torchrun for one job until it ends; its workers are stopped if ``stop`` fills."""
    path = job.folder.parent.with_name(LOG_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    logged = len(read_events(job.folder))
    with (
        tempfile.TemporaryDirectory(prefix="convnext-study-") as name,
        # If this process is killed, its lock is released, so that no worker outlives it.
        locks.take(Path(name) / LOCK) as lock,
        open_to_append(path) as log,
    ):
        jobs = Path(name) / "jobs.json"
        write_jobs(jobs, [job])
        start = os.fstat(log.fileno()).st_size
        # In its own session: Ctrl-C in the terminal is for this process, which passes it on.
        process = subprocess.Popen(
            command(processes, jobs),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**GRACE, **os.environ},
        )
        while True:
            try:
                code = process.wait(TICK)
                break
            except subprocess.TimeoutExpired:
                on_poll()
                if stop:
                    lock.release()
        output = read_bytes(path)[start:].decode(errors="replace")
    return _end_of(job, logged, code, output, bool(stop))


def _end_of(job: Job, logged: int, code: int, output: str, stopped: bool) -> Outcome:
    """The outcome of a job whose processes have ended.

    Args:
        job: the job.
        logged: the number of events in the run's log at the start: those of an earlier start do
            not concern this one.
        code: the exit code of torchrun.
        output: everything that it and its workers printed.
        stopped: whether this process was signalled to stop.
    """
    if is_done(job.folder):
        return Outcome(job.run, "done")
    events = read_events(job.folder)[logged:]
    printed = dict(
        re.findall(
            rf"^convnext-study: (?:{re.escape(job.run.id)}|worker): (failed|busy): (.+)$",
            output,
            re.MULTILINE,
        )
    )
    if "busy" in printed:  # the log is another's
        return Outcome(job.run, "busy", printed["busy"])
    reason = failure(events) or printed.get("failed", "")
    # Without an event it has not begun, and is unchanged.
    if not reason and (events[-1]["event"] == "stopped" if events else stopped):
        return Outcome(job.run, "stopped")
    reason = reason or f"its processes ended with code {code}"
    return Outcome(job.run, "failed", f"{reason}; see {job.folder.parent.with_name(LOG_FILE)}")
