"""SLURM's queue: which tasks are in it, and following runs until they have left it.

What a run has done is read from its record, never from SLURM: clusters without accounting forget
a job's end, and a run may have been finished by another job.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from convnext_study.launching.local import Job, Outcome
from convnext_study.records import LOG, RESULT, read_lines

TICK = 2.0  # seconds between looks at the records, which may lie on a slow shared disk
POLL = 10.0  # seconds between questions to SLURM, which answers all of a site's users


def waiting_tasks(tasks: Iterable[str]) -> set[str] | None:
    """Those of the tasks that wait or run, or None where SLURM does not say."""
    numbers = sorted({task.partition("_")[0] for task in tasks}, key=int)
    if not numbers:
        return set()
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(numbers)}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Of one number that SLURM has forgotten it says so; of several it leaves out those.
    if asked.returncode and "Invalid job id" not in asked.stderr:
        return None
    return set(asked.stdout.split())


def follow(
    tasks: Mapping[str, Job], logs: Path, tick: Callable[[], None], poll: float = POLL
) -> list[Outcome]:
    """Wait until every task's run is done or has left the queue. Returns the outcomes.

    SIGINT and SIGTERM end the waiting; the jobs go on.
    """
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: asked.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return _follow(dict(tasks), logs, lambda: bool(asked), (tick, poll))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(
    left: dict[str, Job],
    logs: Path,
    stop: Callable[[], bool],
    clock: tuple[Callable[[], None], float],
) -> list[Outcome]:
    tick, poll = clock
    outcomes: list[Outcome] = []
    missed: set[str] = set()  # a shared disk may show a result after SLURM shows the job's end
    asked_at = -poll
    while left and not stop():
        tick()
        for task in [task for task, job in left.items() if (job.folder / RESULT).exists()]:
            outcomes.append(Outcome(left.pop(task).run, "done"))
        if left and time.monotonic() - asked_at >= poll:
            asked_at = time.monotonic()
            alive = waiting_tasks(left)
            gone = set() if alive is None else set(left) - alive
            outcomes += [ending(left.pop(task), task, logs) for task in sorted(gone & missed)]
            missed = gone
        if left:
            time.sleep(TICK)
    tick()
    numbers = " ".join(sorted({task.partition("_")[0] for task in left}, key=int))
    note = f"goes on in the queue; to end it: scancel {numbers}"
    return outcomes + [
        Outcome(job.run, "submitted", f"job {task} {note}") for task, job in left.items()
    ]


def ending(job: Job, task: str, logs: Path) -> Outcome:
    """The outcome of a run whose task has left the queue."""
    if (job.folder / RESULT).exists():
        return Outcome(job.run, "done")
    events = [line for line in read_lines(job.folder / LOG) if line.get("event") != "epoch"]
    last = events[-1] if events else {}
    if last.get("event") == "stopped":
        return Outcome(job.run, "stopped", f"job {task} left the queue with its state saved")
    why = str(last["reason"]) if last.get("event") == "failed" else "left the queue with no result"
    return Outcome(job.run, "failed", f"job {task}: {why}; see {logs}")
