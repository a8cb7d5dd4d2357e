"""Runs on this machine's devices with torchrun: every run shared by several processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convnext_study.errors import UserError
from convnext_study.launchers import Launcher, make_folders
from convnext_study.launchers.graph import Job, Outcome, Schedule, in_order, write_jobs
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

    Runs that start from others come after them, and fail with them.

    The processes import torch once and take every job. A job that fails takes them with it, and
    new ones take the rest. SIGINT, SIGTERM and SIGHUP stop the run within a step, its state saved;
    so does the end of this process, however it comes.

    Raises UserError where the devices cannot be shared out so.
    """
    _check(jobs, processes)
    jobs = [_shared(job, processes) for job in in_order(jobs)]
    outcomes: list[Outcome] = []
    schedule = Schedule(jobs)
    with (
        noting_signals() as stop,
        tempfile.TemporaryDirectory(prefix="convnext-study-") as folder,
    ):
        write_jobs(Path(folder) / "jobs.json", jobs)
        while schedule.waiting and not stop:
            group = {place: len(read_events(job.folder)) for place, job in schedule.waiting.items()}
            ending = _run_group(jobs, list(group), processes, Path(folder), (stop, on_poll))
            for end in _ends_of(jobs, group, ending, bool(stop)):
                outcomes += schedule.settle(end)
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


def command(processes: int, jobs: Path, indices: Sequence[int]) -> list[str]:
    """What is started: torchrun, and its workers. They stop when nobody locks ``jobs``'s folder."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    worker = ["--module", WORKER, str(jobs), *map(str, indices)]
    return [sys.executable, "-m", *launcher, *worker, "--while-locked", str(jobs.parent)]


def _run_group(
    jobs: Sequence[Job],
    waiting: Sequence[int],
    processes: int,
    folder: Path,
    control: tuple[list[int], Callable[[], None]],
) -> tuple[int, str]:
    """One torchrun, for as long as it lives. Returns its exit code and all it said."""
    stop, on_poll = control
    path = jobs[0].folder.parent.with_name(LOG_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process that is killed holds no lock any longer, so no worker outlives this one.
    with locks.take(folder / LOCK) as lock, open_to_append(path) as log:
        began = os.fstat(log.fileno()).st_size
        # A session of its own: Ctrl-C in the terminal is for this process, which passes it on.
        process = subprocess.Popen(
            command(processes, folder / "jobs.json", waiting),
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
        return code, read_bytes(path)[began:].decode(errors="replace")


def _ends_of(
    jobs: Sequence[Job], logged: Mapping[int, int], ending: tuple[int, str], stopped: bool
) -> list[Outcome]:
    """What became of the jobs of a group that has ended, but of those that it did not come to.

    Args:
        jobs: all of the request.
        logged: for each index in the group, how many events the run's log held when the group
            started: what an earlier start left there says nothing of this one.
        ending: the group's exit code and all it said.
        stopped: whether this process was signalled to stop.
    """
    left = [index for index in logged if not is_done(jobs[index].folder)]
    ended = [Outcome(jobs[index].run, "done") for index in logged if index not in left]
    if not left:
        return ended
    (code, output), job = ending, jobs[left[0]]  # the one that was worked on
    events = read_events(job.folder)[logged[left[0]] :]
    said = dict(
        re.findall(
            rf"^convnext-study: (?:{re.escape(job.run.id)}|worker): (failed|busy): (.+)$",
            output,
            re.MULTILINE,
        )
    )
    if "busy" in said:  # the others failed with it, and the log is another's
        return [*ended, Outcome(job.run, "busy", said["busy"])]
    why = failure(events) or said.get("failed", "")
    # Without an event it has not begun, and is as it was.
    if not why and (events[-1]["event"] == "stopped" if events else stopped):
        return [*ended, Outcome(job.run, "stopped")]
    log = job.folder.parent.with_name(LOG_FILE)
    why = why or f"its processes ended with code {code}"
    return [*ended, Outcome(job.run, "failed", f"{why}; see {log}")]
