"""Runs on this machine's devices with torchrun: every run shared by several processes."""

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
from convnext_study.launchers.worker import noting_signals
from convnext_study.runs import locks
from convnext_study.runs.files import LOCK, open_to_append, read_bytes
from convnext_study.runs.log import failure, read_events
from convnext_study.runs.records import is_done

WORKER = "convnext_study.launchers.worker"
LOG_FILE = "torchrun.log"  # beside the folder of the runs
# Seconds that torchrun, when terminated, gives its workers to save; its own 30 are few for a slow
# disk. Older versions of torch do not look at it.
GRACE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}


class Torchrun(Launcher):
    """The devices of this machine, which share every run."""

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

    Runs that start from others come after them, and fail with them. SIGINT, SIGTERM and SIGHUP stop
    the run within a step, its state saved; so does the end of this process, however it comes.

    Raises UserError where the devices cannot be shared out so.
    """
    _check(jobs, processes)
    outcomes: list[Outcome] = []
    schedule = Schedule([_shared(job, processes) for job in jobs])
    with noting_signals() as stop:
        while not stop and (job := schedule.take()):
            outcomes += schedule.settle(_train(job, processes, stop, on_poll))
            on_poll()
    return outcomes + schedule.not_started()


def _check(jobs: Sequence[Job], processes: int) -> None:
    if processes < 1:
        raise UserError(f"processes: {processes}; use 1 or more")
    if any(job.runtime.device.startswith("cuda") for job in jobs):
        import torch

        if processes > (there := torch.cuda.device_count()):
            raise UserError(f"processes: {processes} on {there} GPUs; use at most one a GPU")


def _shared(job: Job, processes: int) -> Job:
    """The job with no more threads a process than there are cores for."""
    threads = min(job.runtime.threads, max(cores() // processes, 1))
    return replace(job, runtime=replace(job.runtime, threads=threads))


def command(processes: int, jobs: Path) -> list[str]:
    """What is started: torchrun, and its workers. They stop when nobody locks ``jobs``'s folder."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    worker = ["--module", WORKER, str(jobs), "0", "--while-locked", str(jobs.parent)]
    return [sys.executable, "-m", *launcher, *worker]


def _train(job: Job, processes: int, stop: list[int], on_poll: Callable[[], None]) -> Outcome:
    """One torchrun, for as long as it lives; its workers are ended where ``stop`` fills."""
    path = job.folder.parent.with_name(LOG_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    logged = len(read_events(job.folder))
    with (
        tempfile.TemporaryDirectory(prefix="convnext-study-") as name,
        # A process that is killed holds no lock any longer, so no worker outlives this one.
        locks.take(Path(name) / LOCK) as lock,
        open_to_append(path) as log,
    ):
        jobs = Path(name) / "jobs.json"
        write_jobs(jobs, [job])
        began = os.fstat(log.fileno()).st_size
        # A session of its own: Ctrl-C in the terminal is for this process, which passes it on.
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
        output = read_bytes(path)[began:].decode(errors="replace")
    return _end_of(job, logged, code, output, bool(stop))


def _end_of(job: Job, logged: int, code: int, output: str, stopped: bool) -> Outcome:
    """What became of a job whose processes have ended.

    Args:
        job: the job.
        logged: how many events the run's log held at the start: what an earlier start left there
            says nothing of this one.
        code: the exit code of torchrun.
        output: all that it and its workers printed.
        stopped: whether this process was signalled to stop.
    """
    if is_done(job.folder):
        return Outcome(job.run, "done")
    events = read_events(job.folder)[logged:]
    said = dict(
        re.findall(
            rf"^convnext-study: (?:{re.escape(job.run.id)}|worker): (failed|busy): (.+)$",
            output,
            re.MULTILINE,
        )
    )
    if "busy" in said:  # the log is another's
        return Outcome(job.run, "busy", said["busy"])
    why = failure(events) or said.get("failed", "")
    # Without an event it has not begun, and is as it was.
    if not why and (events[-1]["event"] == "stopped" if events else stopped):
        return Outcome(job.run, "stopped")
    why = why or f"its processes ended with code {code}"
    return Outcome(job.run, "failed", f"{why}; see {job.folder.parent.with_name(LOG_FILE)}")
