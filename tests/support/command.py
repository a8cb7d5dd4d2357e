"""The command line in the test's own process, where torch is imported already."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from convnext_study import cli
from convnext_study.launchers.graph import Job, Outcome, Schedule
from convnext_study.launchers.local import Pool
from convnext_study.launchers.worker import train_job


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    errors: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`convnext-study` with these words."""

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["convnext-study", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def trains_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of this machine's pool, one after another in this process."""

    def run(pool: Pool, jobs: Sequence[Job]) -> list[Outcome]:
        waiting, outcomes = Schedule(jobs), []
        while job := waiting.take():
            status, reason, _ = train_job(job, lambda: False)
            outcomes += waiting.settle(Outcome(job.run, status, reason))
            pool.on_poll()
        return outcomes

    monkeypatch.setattr(Pool, "run", run)
