"""Jobs and their order: a run waits for the run that it starts from, and fails if that fails."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from convnext_study.errors import UserError, first_line
from convnext_study.runs.files import KEPT_RECORD, read_json, write_json
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done``, ``failed``, ``stopped``, or ``busy`` if another command's process
    works on it; and why, in one line. A ``submitted`` run has not ended."""

    run: Run
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What is sent to a worker process: plain values only."""

    run: Run
    folder: Path
    runtime: Runtime
    wandb: str = "off"

    @cached_property
    def waits_for(self) -> str | None:
        """The key of the run that has to be done before; None if it starts from none, or has begun
        and keeps a copy of what it started from."""
        return None if (self.folder / KEPT_RECORD).exists() else self.run.init_from


def write_jobs(path: Path, jobs: Sequence[Job]) -> None:
    """Write jobs as JSON, with absolute folders, since workers may start in another folder."""
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
                Run.model_validate(job["run"]),
                Path(job["folder"]),
                Runtime(**job["runtime"]),
                job["wandb"],
            )
            for job in read_json(path)
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable list of jobs ({first_line(error)})") from None


class Schedule:
    """Jobs in the order in which they may start; among those that may, the given order.

    A parent that is not among the jobs is assumed to be done; if it is not, the child reports it.
    Raises UserError if runs start from each other in a circle.

    Attributes:
        waiting: the jobs that have not been taken, by their indices in the request.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        levels(jobs)
        self.waiting = dict(enumerate(jobs))
        self._keys = [job.run.key for job in jobs]  # computed once, since each is a digest
        # Two rows of the same network may share a key, but are separate jobs.
        self._places = {
            (key, job.run.name): index
            for index, (key, job) in enumerate(zip(self._keys, jobs, strict=True))
        }
        self._open = set(self._keys)
        self._children = defaultdict[str | None, list[int]](list)
        for index, job in self.waiting.items():
            self._children[job.waits_for].append(index)

    def take(self) -> Job | None:
        """The next job that may start; None if all remaining ones wait for others."""
        for index, job in self.waiting.items():
            if job.waits_for not in self._open:
                return self.waiting.pop(index)
        return None

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Record how a job ended. Returns that outcome, and those of the jobs that cannot start
        because of it: its children, and theirs."""
        key = outcome.run.key
        self.waiting.pop(self._places[key, outcome.run.name], None)
        self._open.discard(key)
        if outcome.status == "done":
            return [outcome]
        outcomes = [(key, outcome)]
        for parent_key, parent_outcome in outcomes:  # which grows as it goes
            for index in self._children[parent_key]:
                if child := self.waiting.pop(index, None):
                    outcomes.append((self._keys[index], _end_of(child, parent_outcome)))
                    self._open.discard(self._keys[index])
        return [parent_outcome for _, parent_outcome in outcomes]

    def not_started(self) -> list[Outcome]:
        """The outcomes of the remaining jobs if training is stopped."""
        return [Outcome(job.run, "stopped", "not started") for job in self.waiting.values()]


def _end_of(child: Job, parent: Outcome) -> Outcome:
    if parent.status == "failed":
        return Outcome(child.run, "failed", f"its parent run failed: {parent.run.id}")
    status = "busy" if parent.status == "busy" else "stopped"
    return Outcome(child.run, status, f"not started: its parent run is {parent.run.id}")


def levels(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups, each of which depends only on earlier ones.

    Raises UserError if runs start from each other in a circle.
    """
    indices = {job.run.key: index for index, job in enumerate(jobs)}
    graph = TopologicalSorter[int]()
    for index, job in enumerate(jobs):
        graph.add(index, *[indices[key] for key in (job.waits_for,) if key in indices])
    try:
        graph.prepare()
    except CycleError as error:
        first = jobs[error.args[1][0]].run.id
        raise UserError(f"{first}: depends on a run that depends on it") from None
    groups: list[list[Job]] = []
    while ready := sorted(graph.get_ready()):
        groups.append([jobs[index] for index in ready])
        graph.done(*ready)
    return groups


def parents_of(jobs: Iterable[Job]) -> set[str]:
    """The keys of the runs that these start from."""
    return {job.waits_for for job in jobs if job.waits_for is not None}
