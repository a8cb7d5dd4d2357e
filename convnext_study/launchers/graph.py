"""Jobs and their order: a run that starts from another waits for it, and fails with it."""

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
        raise UserError(f"{path}: not a readable list of jobs ({first_line(error)})") from None


class Schedule:
    """Jobs in the order in which they may start; among those that may, the order given.

    A parent that is not among the jobs is taken to be done: the child says so where it is not.
    Raises UserError where runs start from each other in a circle.

    Attributes:
        waiting: the jobs that have not been taken, by their places in the request.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        levels(jobs)
        self.waiting = dict(enumerate(jobs))
        self._keys = [job.run.key for job in jobs]  # a digest each, so found once
        # Two rows may share a key, as those of one network; each is a job of its own.
        self._places = {
            (key, job.run.name): place
            for place, (key, job) in enumerate(zip(self._keys, jobs, strict=True))
        }
        self._open = set(self._keys)
        self._children = defaultdict[str | None, list[int]](list)
        for place, job in self.waiting.items():
            self._children[job.waits_for].append(place)

    def take(self) -> Job | None:
        """The next job that may start; None while all that are left wait for others."""
        for place, job in self.waiting.items():
            if job.waits_for not in self._open:
                return self.waiting.pop(place)
        return None

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Note how a job ended. Returns that, and the ends of the jobs that cannot start for it:
        those that start from it, and from them."""
        key = outcome.run.key
        self.waiting.pop(self._places[key, outcome.run.name], None)
        self._open.discard(key)
        if outcome.status == "done":
            return [outcome]
        ends = [(key, outcome)]
        for parent, end in ends:  # which grows as it goes
            for place in self._children[parent]:
                if child := self.waiting.pop(place, None):
                    ends.append((self._keys[place], _end_of(child, end)))
                    self._open.discard(self._keys[place])
        return [end for _, end in ends]

    def not_started(self) -> list[Outcome]:
        """The ends of the jobs that are left where all stops."""
        return [Outcome(job.run, "stopped", "not started") for job in self.waiting.values()]


def _end_of(child: Job, parent: Outcome) -> Outcome:
    if parent.status == "failed":
        return Outcome(child.run, "failed", f"the run it starts from failed: {parent.run.id}")
    status = "busy" if parent.status == "busy" else "stopped"
    return Outcome(child.run, status, f"not started: it starts from {parent.run.id}")


def levels(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups, each of which needs only those before it.

    Raises UserError where runs start from each other in a circle.
    """
    places = {job.run.key: place for place, job in enumerate(jobs)}
    graph = TopologicalSorter[int]()
    for place, job in enumerate(jobs):
        graph.add(place, *[places[one] for one in (job.waits_for,) if one in places])
    try:
        graph.prepare()
    except CycleError as error:
        first = jobs[error.args[1][0]].run.id
        raise UserError(f"{first}: starts from a run that starts from it") from None
    found: list[list[Job]] = []
    while ready := sorted(graph.get_ready()):
        found.append([jobs[place] for place in ready])
        graph.done(*ready)
    return found


def parents_of(jobs: Iterable[Job]) -> set[str]:
    """The keys of the runs that these start from."""
    return {job.waits_for for job in jobs if job.waits_for is not None}
