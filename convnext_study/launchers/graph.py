"""Jobs and their order: a run that starts from another waits for it, and fails with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from convnext_study.errors import UserError
from convnext_study.runs.files import KEPT_RECORD, read_json, write_json
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done``, ``failed``, ``stopped``, or ``busy`` where another command's
    process works on it, and why in one line. One that is ``submitted`` has not ended."""

    run: Run
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What a process is sent: plain values only."""

    run: Run
    folder: Path
    runtime: Runtime
    wandb: str = "off"

    @cached_property
    def waits_for(self) -> str | None:
        """The key of the run that has to be done before; None where it starts from none, or has
        begun and keeps what it started from."""
        return None if (self.folder / KEPT_RECORD).exists() else self.run.init_from


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
    try:
        return [
            Job(
                Run.model_validate(one["run"]),
                Path(one["folder"]),
                Runtime(**one["runtime"]),
                one["wandb"],
            )
            for one in read_json(path)
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable list of jobs ({reason})") from None


class Schedule:
    """Jobs in the order in which they may start; among those that may, the order given.

    A parent that is not among the jobs is taken to be done: the child says so where it is not.

    Raises UserError where runs start from each other in a circle.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        levels(jobs)
        self._waiting = dict(enumerate(jobs))
        self._keys = [job.run.key for job in jobs]  # a digest each, so found once
        self._open = set(self._keys)

    def __bool__(self) -> bool:
        """Whether jobs are left that have not been taken."""
        return bool(self._waiting)

    def take(self) -> Job | None:
        """The next job that may start; None while all that are left wait for others."""
        for number, job in self._waiting.items():
            if job.waits_for not in self._open:
                return self._waiting.pop(number)
        return None

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Note how a job that was taken ended. Returns that, and the ends of the jobs that cannot
        start for it: those that start from it, and from them."""
        self._open.discard(outcome.run.key)
        lost = cannot_start(self._waiting, self._keys, outcome)
        for number in lost:
            del self._waiting[number]
            self._open.discard(self._keys[number])
        return [outcome, *lost.values()]

    def rest(self) -> list[Job]:
        """The jobs that have not been taken."""
        return list(self._waiting.values())


def cannot_start(
    waiting: Mapping[int, Job], keys: Sequence[str], ended: Outcome
) -> dict[int, Outcome]:
    """The ends of those waiting jobs that start from a run that ended without a result, and of
    those that start from them; by their numbers, as are the ``keys`` of all jobs."""
    if ended.status == "done":
        return {}
    children = defaultdict[str | None, list[int]](list)
    for number, job in waiting.items():
        children[job.waits_for].append(number)
    found: dict[int, Outcome] = {}
    parents = [(ended.run.key, ended)]
    for parent, end in parents:  # which grows as it goes
        for number in children.pop(parent, ()):
            found[number] = _end_of(waiting[number], end)
            parents.append((keys[number], found[number]))
    return found


def _end_of(child: Job, parent: Outcome) -> Outcome:
    if parent.status == "failed":
        return Outcome(child.run, "failed", f"the run it starts from failed: {parent.run.id}")
    status = "busy" if parent.status == "busy" else "stopped"
    return Outcome(child.run, status, f"not started: it starts from {parent.run.id}")


def levels(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups, each of which needs only those before it.

    Raises UserError where runs start from each other in a circle.
    """
    keys = [job.run.key for job in jobs]
    left, found = set(keys), list[list[Job]]()
    children = defaultdict[str | None, list[int]](list)
    for number, job in enumerate(jobs):
        children[job.waits_for].append(number)
    ready = [number for number, job in enumerate(jobs) if job.waits_for not in left]
    while ready:
        found.append([jobs[number] for number in ready])
        done = {keys[number] for number in ready}
        left -= done
        ready = sorted(number for key in done for number in children.pop(key, ()))
    if left:
        first = next(job for job, key in zip(jobs, keys, strict=True) if key in left)
        raise UserError(f"{first.run.id}: starts from a run that starts from it")
    return found


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, parents before children."""
    return [job for level in levels(jobs) for job in level]


def parents_of(jobs: Iterable[Job]) -> set[str]:
    """The keys of the runs that these start from."""
    return {job.waits_for for job in jobs if job.waits_for is not None}
