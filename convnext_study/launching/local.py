"""Runs on this machine: several trainings side by side, each in a process that takes many.

A process imports torch once and trains one run after another. One that dies takes only its run
with it: a new one is started, and the run can be resumed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from convnext_study.records import Run
from convnext_study.training.task import Machine

TICK = 0.5  # seconds between looks at the records


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done``, ``failed`` or ``stopped``, and why in one line."""

    run: Run
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What a process is sent: plain values only."""

    run: Run
    folder: Path
    machine: Machine
    wandb: str = "off"


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


@dataclass
class Pool:
    """Processes that train jobs.

    Args:
        size: how many trainings run side by side.
        tick: called about twice a second and after each run.
    """

    size: int
    tick: Callable[[], None] = lambda: None
    _workers: list[_Worker] = field(default_factory=list)
    _context: Any = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train all jobs and return their outcomes in the order they ended.

        SIGINT and SIGTERM stop every run within a step, its state saved.
        """
        waiting = deque(jobs)
        outcomes: list[Outcome] = []
        stop = self._context.Event()
        before = {
            number: signal.signal(number, lambda *_: stop.set())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            while True:
                self._feed(waiting, stop)
                busy = [worker for worker in self._workers if worker.job]
                if not busy:
                    break
                wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=TICK)
                outcomes += self._collect(busy)
                self.tick()
            outcomes += [Outcome(job.run, "stopped", "not started") for job in waiting]
        finally:
            self._close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return outcomes

    def _feed(self, waiting: deque[Job], stop: Any) -> None:
        while waiting and not stop.is_set():
            idle = [worker for worker in self._workers if worker.job is None]
            if not idle and len(self._workers) >= self.size:
                return
            worker = idle[0] if idle else self._start(stop)
            worker.job = waiting.popleft()
            worker.pipe.send(worker.job)

    def _start(self, stop: Any) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, stop, os.getpid()))
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _collect(self, busy: list[_Worker]) -> list[Outcome]:
        outcomes = []
        for worker in busy:
            assert worker.job is not None  # noqa: S101  busy says so
            try:
                if not worker.pipe.poll():
                    continue
                status, reason = worker.pipe.recv()
            except (EOFError, ConnectionError):
                worker.process.join()
                status, reason = "failed", _death(worker.process.exitcode)
                self._workers.remove(worker)
            outcomes.append(Outcome(worker.job.run, status, reason))
            worker.job = None
        return outcomes

    def _close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        why = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{why}; ask again to resume it"
    return f"its process ended with code {code}; ask again to resume it"


def _serve(pipe: Connection, stop: Any, parent: int) -> None:
    """A process's life: take a job, train it, say how it ended."""
    # Ctrl-C reaches every process of a terminal; the parent passes it on as `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def asked_to_stop() -> bool:
        # An orphan's parent was killed: save and leave.
        return bool(stop.is_set()) or os.getppid() != parent

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = train_job(job, asked_to_stop)
        try:
            pipe.send(outcome)
        except OSError:
            return


def train_job(job: Job, stop: Callable[[], bool]) -> tuple[str, str]:
    """Train one job in this process. Returns its status and, where it failed, the reason."""
    from convnext_study.training.engine import Listener, Stopped, train

    notes: list[str] = []
    listeners: list[Listener] = []
    mirror = None
    if job.wandb != "off" and job.machine.rank == 0:
        from convnext_study.results.wandb_mirror import WandbMirror

        mirror = WandbMirror(warn=notes.append)
        mirror.start(job.run, job.folder, job.wandb)
        listeners.append(mirror)
    try:
        train(job.run, job.folder, job.machine, listeners, stop)
    except Stopped:
        return "stopped", ""
    except Exception as error:
        return "failed", str(error).splitlines()[0] if str(error) else type(error).__name__
    finally:
        if mirror is not None:
            mirror.close()
    return "done", "; ".join(notes)
