"""SLURM's queue: which tasks are in it, and following runs until they have left it.

What a run has done is read from its record, never from SLURM: clusters without accounting forget
a job's end, and a run may have been finished by another job.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from convnext_study.launchers.graph import Job, Outcome
from convnext_study.launchers.worker import noting_signals
from convnext_study.runs.log import failure, read_events
from convnext_study.runs.records import is_done, is_locked

TICK = 2.0  # seconds between looks at the records, which may lie on a slow shared disk
POLL = 10.0  # seconds between questions to SLURM, which answers all of a site's users


def waiting_tasks(tasks: Iterable[str]) -> set[str] | None:
    """Those of the tasks that wait or run, or None where SLURM does not say."""
    numbers = sorted({task.partition("_")[0] for task in tasks}, key=int)
    if not numbers:
        return set()
    done = _ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(numbers)}")
    # Of one number that SLURM has forgotten it says so; of several it leaves out those.
    if done is None or (done.returncode and "Invalid job id" not in done.stderr):
        return None
    return set(done.stdout.split())


def max_array_size() -> int | None:
    """How many runs an array may have at this site, or None where SLURM does not say."""
    done = _ask("scontrol", "show", "config")
    found = done and re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    # Indices, which begin with 0, must be below it; 0 means that there are no arrays.
    return max(int(found[1]), 1) if found else None


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """What a command of SLURM's says; None where there is none, or it hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None


@dataclass(frozen=True)
class Task:
    """A run in the queue.

    ``logged`` is how many events the run's log held when it was submitted: what an earlier job
    left there says nothing of this one.
    """

    job: Job
    logged: int = 0


def follow(tasks: Mapping[str, Task], logs: Path, on_poll: Callable[[], None]) -> list[Outcome]:
    """Wait until every task's run is done or has left the queue. Returns the outcomes.

    ``tasks`` is by SLURM's names, ``logs`` the folder with their output. SIGINT, SIGTERM and
    SIGHUP end the waiting; the jobs go on.
    """
    left, outcomes = dict(tasks), list[Outcome]()
    missed: set[str] = set()  # a shared disk may show a result after SLURM shows the job's end
    asked_at = -POLL
    with noting_signals() as stop:
        while left and not stop:
            on_poll()
            for name in [name for name, one in left.items() if is_done(one.job.folder)]:
                outcomes.append(Outcome(left.pop(name).job.run, "done"))
            if left and time.monotonic() - asked_at >= POLL:
                asked_at = time.monotonic()
                alive = waiting_tasks(left)
                gone = set() if alive is None else set(left) - alive
                outcomes += [ending(left.pop(name), name, logs) for name in sorted(gone & missed)]
                missed = gone
            if left:
                time.sleep(TICK)
        on_poll()
    numbers = " ".join(sorted({name.partition("_")[0] for name in left}, key=int))
    note = f"goes on in the queue; to end it: scancel {numbers}"
    return outcomes + [
        Outcome(one.job.run, "submitted", f"job {name} {note}") for name, one in left.items()
    ]


def ending(task: Task, name: str, logs: Path) -> Outcome:
    """The outcome of a run whose task, of that name in SLURM, has left the queue."""
    job = task.job
    if is_done(job.folder):
        return Outcome(job.run, "done")
    if is_locked(job.folder):
        return Outcome(job.run, "busy", f"job {name}: another process is working on this run")
    events = read_events(job.folder)[task.logged :]
    if events and events[-1]["event"] == "stopped":
        return Outcome(job.run, "stopped", f"job {name} left the queue with its state saved")
    why = failure(events) or "left the queue with no result"
    return Outcome(job.run, "failed", f"job {name}: {why}; see {logs}")
