"""Runs on this machine: a pool of worker processes, each of which trains one run after another.

Workers are forked from a process that has imported torch. If one dies, only its run fails: a new
one is started, and the run can be resumed.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from ctypes import c_byte
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess

from convnext_study.data import forkserver
from convnext_study.launchers import Launcher, make_folders
from convnext_study.launchers.graph import Job, Outcome, Schedule
from convnext_study.launchers.resources import Resources
from convnext_study.launchers.worker import recorded_signals, serve

TICK = 0.5  # seconds between reads of the records


class Local(Launcher):
    """Processes on this machine, each of which trains one run at a time."""

    name = "local"

    def run(
        self, jobs: Sequence[Job], resources: Resources, on_poll: Callable[[], None]
    ) -> list[Outcome]:
        """Train jobs in a `Pool`."""
        make_folders(jobs)
        forkserver.start(forkserver.TRAININGS)
        return Pool(resources.jobs, on_poll, resources.devices).run(jobs)

    def describe(self, resources: Resources, per_run: str) -> str:
        """How many trainings in parallel, and on which devices."""
        devices = resources.devices or (resources.runtime.device,)
        where = devices[0] if len(devices) == 1 else f"{devices[0]} to {devices[-1]}"
        return f"{resources.jobs} in parallel, {per_run}, on {where}"


@dataclass
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    device: str | None
    job: Job | None = None


@dataclass
class Pool:
    """Processes that train jobs.

    Args:
        size: how many trainings run in parallel.
        on_poll: called about twice a second and after each run.
        devices: divided among the processes, each of which keeps its own; if empty, each job
            uses its own device.
    """

    size: int
    on_poll: Callable[[], None] = lambda: None
    devices: tuple[str, ...] = ()
    _workers: list[_Worker] = field(default_factory=list)
    _leaving: list[_Worker] = field(default_factory=list)
    _context: ForkServerContext = field(default_factory=forkserver.context)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train all jobs and return their outcomes in the order they ended.

        A run that starts from another of them starts when that is done, and fails if that fails.

        SIGINT, SIGTERM and SIGHUP, to this process or to all of its group, stop every run within a
        step, with its state saved. So does an error in ``on_poll``.
        """
        schedule = Schedule(jobs)
        outcomes: list[Outcome] = []
        # Not an Event, which has a lock: a signal handler that sets it would deadlock if the signal
        # came while the process read it, and so would all others if a reader were killed.
        stop = self._context.RawValue("b", 0)
        with recorded_signals() as signals:
            try:
                while True:
                    if signals:
                        stop.value = 1
                    self._feed(schedule, stop)
                    busy = [worker for worker in self._workers if worker.job]
                    if not busy:
                        break
                    wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=TICK)
                    for outcome in self._collect(busy):
                        if outcome.status == "stopped":
                            stop.value = 1  # a signal to one process is meant for all of them
                        outcomes += schedule.settle(outcome)
                    self.on_poll()
                outcomes += schedule.not_started()
            finally:
                stop.value = 1
                self._close()
        return outcomes

    def _feed(self, schedule: Schedule, stop: c_byte) -> None:
        while schedule.waiting and not stop.value:
            idle = [worker for worker in self._workers if worker.job is None]
            if not idle and len(self._workers) >= self.size:
                return
            if (job := schedule.take()) is None:
                return
            worker = idle[0] if idle else self._start(stop)
            if worker.device is not None:
                job = replace(job, runtime=replace(job.runtime, device=worker.device))
            worker.job = job
            # A process that has died meanwhile is noticed when its answer is read.
            with contextlib.suppress(OSError):
                worker.pipe.send(job)

    def _start(self, stop: c_byte) -> _Worker:
        own_end, worker_end = self._context.Pipe()
        process = self._context.Process(target=serve, args=(worker_end, stop))
        process.start()
        worker_end.close()
        devices = [worker.device for worker in self._workers]
        device = min(self.devices, key=devices.count) if self.devices else None
        worker = _Worker(process, own_end, device)
        self._workers.append(worker)
        return worker

    def _collect(self, busy: list[_Worker]) -> list[Outcome]:
        outcomes = []
        for worker in busy:
            assert worker.job is not None  # noqa: S101  busy says so
            try:
                if not worker.pipe.poll():
                    continue
                status, reason, leaves = worker.pipe.recv()
            except (EOFError, ConnectionError):
                worker.process.join()
                status, reason, leaves = "failed", _death_reason(worker.process.exitcode), True
            if leaves:
                self._workers.remove(worker)
                self._leaving.append(worker)
            outcomes.append(Outcome(worker.job.run, status, reason))
            worker.job = None
        return outcomes

    def _close(self) -> None:
        workers = self._workers + self._leaving
        for worker in workers:
            worker.pipe.close()
        for worker in workers:
            worker.process.join()
        self._workers.clear()
        self._leaving.clear()


def _death_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}; rerun the same command to resume it"
    return f"its process ended with code {code}; rerun the same command to resume it"
