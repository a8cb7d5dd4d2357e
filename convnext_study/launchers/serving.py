"""A process of the pool, from the inside: it takes one job after another and trains it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import TYPE_CHECKING, Any

from convnext_study.errors import Busy

if TYPE_CHECKING:
    from convnext_study.launchers.job import Job

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def note_signals(numbers: Iterable[int], asked: list[int]) -> dict[int, Any]:
    """Have signals add their numbers to ``asked``. Returns the handlers before.

    A handler may come in the middle of anything, and only notes; output to a terminal that has
    been closed is dropped, so that what follows does not fail of it. Under ``nohup`` a closed
    terminal is no reason to stop, and stays ignored.
    """
    terminals = [output for output in (1, 2) if os.isatty(output)]

    def note(number: int, _: object) -> None:
        asked.append(number)
        for output in terminals:
            if not os.isatty(output):
                os.dup2(os.open(os.devnull, os.O_WRONLY), output)

    return {
        number: signal.signal(number, note)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }


@contextlib.contextmanager
def noting_signals() -> Iterator[list[int]]:
    """The stop signals that this process gets during the block, which end nothing by themselves."""
    asked: list[int] = []
    before = note_signals(STOP_SIGNALS, asked)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Flag:
    """A bit that this process and its children share, for good once it is set.

    A ``multiprocessing.Event`` has a lock: a signal's handler that sets it waits forever where
    the signal came while the process was looking, and so do all where one is killed while it
    looks. This is one byte of shared memory.
    """

    def __init__(self, context: SpawnContext) -> None:
        self._byte = context.RawValue("b", 0)

    def set(self) -> None:
        """Set the bit, for this process and all that share it."""
        self._byte.value = 1

    def is_set(self) -> bool:
        """Whether any process has set the bit."""
        return bool(self._byte.value)


def serve(pipe: Connection, stop: Flag, parent: int) -> None:
    """A process's life: take a job, train it, say how it ended."""
    asked: list[int] = []
    # Ctrl-C reaches every process of a terminal; the parent passes it on as `stop`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    note_signals((signal.SIGTERM, signal.SIGHUP), asked)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def asked_to_stop() -> bool:
        # An orphan's parent was killed: save and leave.
        return bool(asked) or stop.is_set() or os.getppid() != parent

    leaves = False
    while not leaves:
        try:
            job: Job = pipe.recv()
        except (EOFError, OSError):
            return
        status, reason = train_job(job, asked_to_stop)
        leaves = status == "failed" and is_broken(job.runtime.device)
        try:
            pipe.send((status, reason, leaves))
        except OSError:
            return


def is_broken(device: str) -> bool:
    """Whether this process can no longer use its GPU: after some errors CUDA refuses all else."""
    if not device.startswith("cuda"):
        return False
    import torch

    try:
        torch.cuda.synchronize(device)
    except (RuntimeError, AssertionError):  # the latter where torch was built without CUDA
        return True
    return False


def use_device(device: str) -> None:
    """Make one GPU of several this process's own, also for what names none."""
    if device.startswith("cuda:"):
        import torch

        torch.cuda.set_device(device)


def train_job(job: Job, stop: Callable[[], bool]) -> tuple[str, str]:
    """Train one job in this process. Returns its status and, where it failed, the reason."""
    from convnext_study.runs.wandb import mirrored
    from convnext_study.training.loop import TrainingInterrupted, train

    notes: list[str] = []
    try:
        use_device(job.runtime.device)
        with mirrored(job.run, job.folder, job.wandb, notes.append):
            train(job.run, job.folder, job.runtime, stop=stop)
    except TrainingInterrupted:
        return "stopped", ""
    except Busy as error:
        return "busy", str(error)
    except Exception as error:
        return "failed", str(error).splitlines()[0] if str(error) else type(error).__name__
    return "done", "; ".join(notes)
