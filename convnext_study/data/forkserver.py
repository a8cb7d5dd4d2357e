"""Processes forked from one that has imported what they need, so that none imports it again.

It is multiprocessing's fork server, one for a command: trainings are forked from it, and their
readers too. It and all that come of it are born with the signals to stop held back, until they
handle them: one to a whole process group would end the server, and nobody would know any longer
how its processes end.

Two things stay as multiprocessing has them. It has one server for a whole process, so that what
a notebook starts by the method ``forkserver`` (Python 3.14's default) comes of it too, with those
signals held back: start other processes by ``get_context("spawn")``. And the server's libraries see
the environment of its start when they are imported; a process has that of its own start after.
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
# What is imported by those that read, and by those that train, whose main module is the command's.
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
    """One with the environment that its parent has when it is made, and not when the server was."""

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
    """What starts processes; ``preload`` as in `start`."""
    start(preload)
    return _Context()


def start(preload: Sequence[str] = ()) -> None:
    """See to it that the server runs. One that starts now imports modules, while this goes on."""
    server: Any = forkserver._forkserver
    known_to_children = getattr(server, "_forkserver_authkey", b"") is not None  # Python 3.14
    if forkserver.get_inherited_fds() is not None and known_to_children:
        # This process is its child, and asks it too: else it would start one of its own.
        server.ensure_running = resource_tracker.ensure_running
        return
    resource_tracker.ensure_running()  # later it would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        known = server._forkserver_pid
        forkserver.set_forkserver_preload(list(preload))
        forkserver.ensure_running()
        if server._forkserver_pid != known:
            util.Finalize(None, _end, (server._forkserver_pid, os.getpid()), exitpriority=-100)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes started here do not run the main script again: what they are given is not in it."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        main.__dict__.pop("__file__", None)
        main.__spec__ = None
        yield
    finally:
        main.__dict__.update(hidden)


def leave_with_owner() -> None:
    """Have this process end once the one that started it has, however that came.

    What looks at its parent sees the server: a reader would stay, and hold the lock of a run whose
    process was killed.
    """

    def leave() -> None:
        if (owner := multiprocessing.parent_process()) is not None:
            owner.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _forget() -> None:
    """In a process that was forked from one with a server: that is another's child, not its own."""
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


os.register_at_fork(after_in_child=_forget)


def _end(server: int, owner: int) -> None:
    """It would leave by itself once it has imported all, and hold our output open until then."""
    if os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
