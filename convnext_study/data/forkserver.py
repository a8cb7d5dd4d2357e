"""Processes forked from a server that has already imported what they need.

It is multiprocessing's fork server, one per command: training processes and their readers are
forked from it. The server and its children start with the stop signals blocked until they handle
them: a signal to the whole process group would otherwise end the server, and the exit status of
its children would be lost.

Two things follow from multiprocessing. It has one server per process, so what a notebook starts by
the method ``forkserver`` (Python 3.14's default) is also forked from it, with those signals
blocked: start other processes by ``get_context("spawn")``. And libraries are imported in the
server's environment, that of its start; each child then gets the environment of its own start.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
# Modules to import for readers, and for training processes, whose main module is the command's.
READERS = (
    "convnext_study.data.pool",
    "convnext_study.data.transforms.image",
    "convnext_study.data.transforms.auto_augment",
    "convnext_study.data.transforms.random_erasing",
)
TRAININGS = (
    *READERS,
    "convnext_study.training.loop",
    "convnext_study.training.tasks.classification",
    "convnext_study.data.transforms.mixup",
    "convnext_study.models.roadmap_net",
    "convnext_study.cli",
)


class _Process(ForkServerProcess):
    """A process with its parent's environment at the time it is made, not the server's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._environment = dict(os.environ)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environment)
        super().run()


class _Context(ForkServerContext):
    Process = _Process


def context(preload: Sequence[str] = ()) -> ForkServerContext:
    """A context that starts processes; ``preload`` as in `start`."""
    start(preload)
    return _Context()


def start(preload: Sequence[str] = ()) -> None:
    """Start the server unless it runs. A new one imports ``preload`` in the background."""
    server: Any = forkserver._forkserver
    known_to_children = getattr(server, "_forkserver_authkey", b"") is not None  # Python 3.14
    if forkserver.get_inherited_fds() is not None and known_to_children:
        # This process is its child and uses it too: otherwise it would start another server.
        server.ensure_running = resource_tracker.ensure_running
        return
    resource_tracker.ensure_running()  # started later, it would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        server_pid = server._forkserver_pid
        forkserver.set_forkserver_preload(list(preload))
        forkserver.ensure_running()
        if server._forkserver_pid != server_pid:
            util.Finalize(None, _end, (server._forkserver_pid, os.getpid()), exitpriority=-100)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes started inside do not run the main script again: they need nothing from it."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        main.__dict__.pop("__file__", None)
        main.__spec__ = None
        yield
    finally:
        main.__dict__.update(hidden)


def exit_with_owner() -> None:
    """End this process as soon as the one that started it has ended, for whatever reason.

    The parent in the system's sense is the server: a reader would stay and hold the lock of a run
    whose process was killed.
    """

    def wait() -> None:
        if (owner := multiprocessing.parent_process()) is not None:
            owner.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _forget() -> None:
    """Forget the server after a fork: it is the child of the parent, not of this process."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


os.register_at_fork(after_in_child=_forget)


def _end(server: int, owner: int) -> None:
    """Kill the server, which would otherwise keep our output open until its imports are done."""
    if os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
