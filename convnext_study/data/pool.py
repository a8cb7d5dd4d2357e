"""The processes that read images: started once per run, fed epoch by epoch.

They make small parts of a batch each, which are put together here: so the first batch of an epoch
waits for no single one of them to make it all.

A signal to the whole process group asks the training process to save. Its readers take no notice,
since it needs them to end the step; they go when it closes them, and when it is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import util
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from convnext_study.data import forkserver
from convnext_study.data.dataset import DataError
from convnext_study.data.forkserver import STOP_SIGNALS
from convnext_study.data.rng import generator
from convnext_study.data.workers import Images, Request, Samples, join

PART = 32  # images


class Readers:
    """Reads images in so many processes, or in this one where there are none.

    Args:
        parts: where to read, by name.
        workers: processes, started when first needed.
        batch: images of the largest batch, that many are read ahead.
        pin: give batches in memory that a GPU can copy from by itself.
    """

    def __init__(
        self, parts: dict[str, Samples], workers: int, batch: int = PART, *, pin: bool = False
    ) -> None:
        self._parts, self._workers, self._pin = parts, workers, pin
        self._ahead = -(-batch // (PART * max(workers, 1))) + 1
        self._requests: list[Request] = []  # what the loader is to read next
        self._loader: DataLoader[Any] | None = None
        self._children: list[BaseProcess] = []
        self._owner = os.getpid()
        self._round = 0
        self.failure = ""  # why the processes are gone, where one was killed
        _open.add(self)

    def read(self, batches: Sequence[Request]) -> Iterator[Images]:
        """The requested batches, in order. One call at a time: the next one ends the one before.

        Where a process was killed, the rest is read in this one, so that what was begun can be
        ended and saved; `failure` says so from then on. Raises DataError at an image that cannot
        be used.
        """
        parts = [
            [
                Request(batch.part, batch.indices[first : first + PART], batch.epoch)
                for first in range(0, len(batch.indices), PART)
            ]
            for batch in batches
        ]
        stream = self._stream([part for one in parts for part in one])
        for one in parts:
            yield join([next(stream) for _ in one], pin=self._pin)

    def close(self) -> None:
        """End the processes. They start again when needed."""
        loader, self._loader = self._loader, None
        self._round += 1
        if loader is None or os.getpid() != self._owner:
            return
        iterator: Any = loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()  # what it does when forgotten; here others may know it
        for child in self._children:
            child.kill()  # as SIGTERM means nothing to it; one that hangs would keep us from ending
        self._children = []

    def __del__(self) -> None:
        self.close()

    def _stream(self, requests: list[Request]) -> Iterator[Any]:
        given = 0
        try:
            iterator = self._started(requests) if self._workers and not self.failure else iter(())
            mine = self._round
            for images in iterator:
                given += 1
                if isinstance(images, DataError):
                    self.close()  # at once; where all is forgotten, it waits for them
                    raise images
                yield images
                if mine != self._round:
                    raise RuntimeError("these images were given up when others were requested")
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            self.close()
            self.failure = (
                f"a process that reads images ended ({str(error).splitlines()[0]}); where memory, "
                "or shared memory in a container, is short, use fewer --workers"
            )
        for request in requests[given:]:
            yield self._parts[request.part].read(request.indices, request.epoch)

    def _started(self, requests: list[Request]) -> Iterator[Any]:
        """The loader's results for these requests, from processes that may be there already."""
        self._round += 1
        self._requests[:] = requests
        if self._loader is not None:
            return iter(self._loader)
        self._loader = DataLoader(
            _Parts(self._parts),
            batch_sampler=self._requests,  # type: ignore[arg-type]  # what is read is what it holds
            num_workers=self._workers,
            prefetch_factor=self._ahead,
            persistent_workers=True,
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            multiprocessing_context=forkserver.context(forkserver.READERS),
            # Its own generator: the loader draws a base seed, which must not move the global one.
            generator=generator(0),
        )
        # Before multiprocessing closes the queues, and waits in vain for what is deaf to SIGTERM.
        util.Finalize(None, _close_all, exitpriority=100)
        before = set(multiprocessing.active_children())
        with forkserver.without_main():
            iterator = iter(self._loader)
        self._children = [one for one in multiprocessing.active_children() if one not in before]
        return iterator


class _Parts(Dataset[Images | DataError]):
    """As the loader asks for it: a request for many images at a time.

    A process that reads does not raise: what is wrong with an image travels as a value, so that the
    user reads one line instead of a traceback of another process.
    """

    def __init__(self, parts: dict[str, Samples]) -> None:
        self._parts = parts

    def __getitems__(self, request: Request) -> Images | DataError:
        try:
            return self._parts[request.part].read(request.indices, request.epoch)
        except DataError as error:
            return error


def _as_it_is(images: Any) -> Any:
    return images


def _begin(_: int) -> None:
    """In a reader, before it reads."""
    forkserver.leave_with_owner()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def failure() -> str:
    """Why readers of this process are gone; empty where none was killed."""
    return next((readers.failure for readers in _open if readers.failure), "")


def forget_failure() -> None:
    """Begin anew: what a run that failed has left may be there for a while."""
    for readers in _open:
        readers.failure = ""


_open: weakref.WeakSet[Readers] = weakref.WeakSet()


def _close_all() -> None:
    for readers in list(_open):
        readers.close()
