"""Runs that start from others: a child waits for its parent, and fails with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from convnext_study.errors import UserError
from convnext_study.launchers.job import Job, Outcome


class Schedule:
    """Jobs in the order in which they may start; among those that may, the order given.

    A parent that is not among the jobs is taken to be done: the child says so where it is not.

    Raises UserError where runs start from each other in a circle.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        levels(jobs)
        self._waiting = list(jobs)
        self._open = {job.run.key for job in jobs}

    def __bool__(self) -> bool:
        """Whether jobs are left that have not been taken."""
        return bool(self._waiting)

    def take(self) -> Job | None:
        """The next job that may start; None while all that are left wait for others."""
        for job in self._waiting:
            if job.run.init_from not in self._open:
                self._waiting.remove(job)
                return job
        return None

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Note how a job that was taken ended. Returns that, and the ends of the jobs that cannot
        start for it: those that start from it, and from them."""
        lost = cannot_start(self._waiting, outcome)
        gone = {one.run.key for one in lost}
        self._open -= {outcome.run.key, *gone}
        self._waiting = [job for job in self._waiting if job.run.key not in gone]
        return [outcome, *lost]

    def rest(self) -> list[Job]:
        """The jobs that have not been taken."""
        return list(self._waiting)


def cannot_start(waiting: Sequence[Job], ended: Outcome) -> list[Outcome]:
    """The ends of those waiting jobs that start from a run that ended without a result, and of
    those that start from them."""
    if ended.status == "done":
        return []
    found: list[Outcome] = []
    for child in waiting:
        if child.run.init_from == ended.run.key:
            own = _end_of(child, ended)
            found += [own, *cannot_start(waiting, own)]
    return found


def _end_of(child: Job, parent: Outcome) -> Outcome:
    if parent.status == "failed":
        return Outcome(child.run, "failed", f"the run it starts from failed: {parent.run.id}")
    return Outcome(child.run, "stopped", f"not started: it starts from {parent.run.id}")


def levels(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups, each of which needs only those before it.

    Raises UserError where runs start from each other in a circle.
    """
    left, found = list(jobs), list[list[Job]]()
    while left:
        keys = {job.run.key for job in left}
        ready = [job for job in left if job.run.init_from not in keys]
        if not ready:
            raise UserError(f"{left[0].run.id}: starts from a run that starts from it")
        found.append(ready)
        left = [job for job in left if job.run.init_from in keys]
    return found


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, parents before children."""
    return [job for level in levels(jobs) for job in level]


def parents_of(jobs: Iterable[Job]) -> set[str]:
    """The keys of the runs that these start from."""
    return {job.run.init_from for job in jobs if job.run.init_from is not None}
