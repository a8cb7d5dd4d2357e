"""The processes that read images: started once per run, fed epoch by epoch.

Each reads small parts of a batch, which are joined here, so the first batch of an epoch does not
wait for one process to make all of it.

A signal to the whole process group requests the training process to save. Its readers ignore it,
since they are needed to finish the step; they end when they are closed or their owner has ended.
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
from convnext_study.data.workers import Images, Request, SampleReader, join

PART = 32  # images


class Readers:
    """Reads images in ``workers`` processes, or in this one if there are none.

    Args:
        parts: images to read, by name.
        workers: processes, started when first needed.
        batch: images of the largest batch; that many are read ahead.
        pin: return batches in pinned memory.
    """

    def __init__(
        self, parts: dict[str, SampleReader], workers: int, batch: int = PART, *, pin: bool = False
    ) -> None:
        self._parts, self._workers, self._pin = parts, workers, pin
        self._ahead = -(-batch // (PART * max(workers, 1))) + 1
        self._requests: list[Request] = []  # what the loader reads next
        self._loader: DataLoader[Any] | None = None
        self._children: list[BaseProcess] = []
        self._owner = os.getpid()
        self._round = 0
        self.failure = ""  # why the processes ended, if one was killed
        _open.add(self)

    def read(self, batches: Sequence[Request]) -> Iterator[Images]:
        """The requested batches, in order. A new call ends the previous one.

        If a process was killed, the rest is read in this one, so that the step can be finished and
        saved; `failure` then gives the reason. Raises DataError for an image that cannot be used.
        """
        parts = [
            [
                Request(batch.part, batch.indices[first : first + PART], batch.epoch)
                for first in range(0, len(batch.indices), PART)
            ]
            for batch in batches
        ]
        stream = self._stream([part for batch_parts in parts for part in batch_parts])
        for batch_parts in parts:
            yield join([next(stream) for _ in batch_parts], pin=self._pin)

    def close(self) -> None:
        """End the processes. They start again when needed."""
        loader, self._loader = self._loader, None
        self._round += 1
        if loader is None or os.getpid() != self._owner:
            return
        iterator: Any = loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()  # as on deletion, but it may still be referenced
        for child in self._children:
            child.kill()  # it ignores SIGTERM, and one that hangs would keep us from ending
        self._children = []

    def __del__(self) -> None:
        self.close()

    def _stream(self, requests: list[Request]) -> Iterator[Any]:
        yielded = 0
        try:
            iterator = self._started(requests) if self._workers and not self.failure else iter(())
            current_round = self._round
            for images in iterator:
                yielded += 1
                if isinstance(images, DataError):
                    self.close()  # kills them; the loader's own deletion would wait for them
                    raise images
                yield images
                if current_round != self._round:
                    raise RuntimeError("these images were dropped when others were requested")
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            self.close()
            self.failure = (
                f"a data reader ended ({str(error).splitlines()[0]}); if memory, or shared memory "
                "in a container, is short, use fewer --workers"
            )
        for request in requests[yielded:]:
            yield self._parts[request.part].read(request.indices, request.epoch)

    def _started(self, requests: list[Request]) -> Iterator[Any]:
        """The loader's results for these requests; starts its processes if necessary."""
        self._round += 1
        self._requests[:] = requests
        if self._loader is not None:
            return iter(self._loader)
        self._loader = DataLoader(
            _Parts(self._parts),
            batch_sampler=self._requests,  # type: ignore[arg-type]  # a list changed in place
            num_workers=self._workers,
            prefetch_factor=self._ahead,
            persistent_workers=True,
            collate_fn=_identity,
            worker_init_fn=_begin,
            multiprocessing_context=forkserver.context(forkserver.READERS),
            # Its own generator: the loader draws a base seed, which must not change the global one.
            generator=generator(0),
        )
        # Before multiprocessing closes the queues and waits for processes that ignore SIGTERM.
        util.Finalize(None, _close_all, exitpriority=100)
        before = set(multiprocessing.active_children())
        with forkserver.without_main():
            iterator = iter(self._loader)
        self._children = [p for p in multiprocessing.active_children() if p not in before]
        return iterator


class _Parts(Dataset[Images | DataError]):
    """The parts as the loader's data set, each request for many images at a time.

    Readers do not raise: an image's error is returned as a value, so that the user reads one line
    instead of the traceback of another process.
    """

    def __init__(self, parts: dict[str, SampleReader]) -> None:
        self._parts = parts

    def __getitems__(self, request: Request) -> Images | DataError:
        try:
            return self._parts[request.part].read(request.indices, request.epoch)
        except DataError as error:
            return error


def _identity(images: Any) -> Any:
    return images


def _begin(_: int) -> None:
    """Set up a reader process."""
    forkserver.exit_with_owner()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def failure() -> str:
    """Why readers of this process ended; empty if none was killed."""
    return next((readers.failure for readers in _open if readers.failure), "")


def forget_failure() -> None:
    """Reset all failures: readers of a failed run may not have been deleted yet."""
    for readers in _open:
        readers.failure = ""


_open: weakref.WeakSet[Readers] = weakref.WeakSet()


def _close_all() -> None:
    for readers in list(_open):
        readers.close()
