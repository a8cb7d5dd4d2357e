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
        ended = [outcome]
        self._open.discard(outcome.run.key)
        if outcome.status == "done":
            return ended
        for child in [job for job in self._waiting if job.run.init_from == outcome.run.key]:
            self._waiting.remove(child)
            ended += self.settle(cannot_start(child, outcome))
        return ended

    def rest(self) -> list[Job]:
        """The jobs that have not been taken."""
        return list(self._waiting)


def cannot_start(child: Job, parent: Outcome) -> Outcome:
    """The end of a run whose parent ended without a result."""
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
