"""A lock where the file system has none: a file with its holder, who renews its time.

A lease ends when its holder lets go, when no such process lives on the same machine, or when it
was not renewed for five minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

ANOTHER = "another process"
LEASE = ".lease"  # how a lease's name ends, after the lock's
BEAT = 20.0  # seconds between renewals
STALE = 300.0  # seconds without one, after which the holder counts as dead
_STUCK = 10.0  # seconds; whoever looks at a lease to remove it needs less


class Held(Exception):
    """Another living process holds the lock; ``holder`` is that process, in words."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Lease:
    """A file that says who works here, renewed by a thread of the holder."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.is_lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, path: Path) -> Lease:
        """Make the lease, or take over one whose holder is dead.

        A holder on another machine is given the time to renew it: one that was preempted is not
        coming back, and its run is about to go on here. Raises Held, and OSError.
        """
        text = json.dumps({**_here(), "token": uuid.uuid4().hex})
        first = _renewed_at(path)
        while not _create(path, text):
            found = _read(path)
            if _is_over(path, found):
                _remove(path, found)
                continue
            holder = _holder(found)
            if _is_near(holder) or _renewed_at(path) != first:
                words = f"process {holder['pid']} on {holder['host']}" if holder else ANOTHER
                raise Held(words)
            time.sleep(min(BEAT, 1.0))
        return cls(path, text)

    def _renew(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):  # a server that is away for a moment
                now = _read(self.path)
                if now == self.text:
                    os.utime(self.path)
                elif now is None:  # deleted by hand
                    _create(self.path, self.text)
                elif now:
                    self.is_lost = True
                    return

    def release(self) -> None:
        """End it, unless another process has taken it over."""
        self._end.set()
        self._thread.join()
        if not self.is_lost:
            _remove(self.path, self.text)


def lease_of(path: Path) -> Path:
    """The file of the lease of a lock."""
    return path.with_name(path.name + LEASE)


def is_held(lease: Path) -> bool:
    """Whether a living process holds the lease. Nothing is written. Raises OSError."""
    return lease.exists() and not _is_over(lease, _read(lease))


def _here() -> dict[str, str | int]:
    """This process, as another one can tell whether it lives: a container counts for itself."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return {"host": socket.gethostname(), "space": space, "pid": os.getpid()}


def _create(path: Path, text: str) -> bool:
    """Make the file, unless it is there: of several processes that try, one succeeds."""
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _remove(path: Path, text: str | None) -> None:
    """Remove the lease with that text, and no other that has come in its place since.

    One process at a time looks and removes: of two that saw the same dead holder, the second
    would remove the lease of the first.
    """
    mine = path.with_name(f".{path.name}.over")
    with contextlib.suppress(FileNotFoundError):  # the folder was removed
        while not _create(mine, ""):
            since = _renewed_at(mine)
            if since is not None and time.time() - since > _STUCK:
                mine.unlink(missing_ok=True)
            time.sleep(0.01)
        if text is not None and _read(path) == text:
            path.unlink(missing_ok=True)
        mine.unlink()


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _renewed_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _is_over(path: Path, text: str | None) -> bool:
    """Whether the holder that a lease's text names is dead, as far as this machine can tell."""
    renewed, holder = _renewed_at(path), _holder(text)
    if text is None or renewed is None:
        return False
    if time.time() - renewed > STALE:
        return True
    return _is_near(holder) and not _lives(int(holder["pid"]))


def _holder(text: str | None) -> dict[str, str | int]:
    """What a lease says; nothing while it is being written."""
    try:
        about = json.loads(text or "")
        return {"host": about["host"], "space": about["space"], "pid": int(about["pid"])}
    except (ValueError, TypeError, KeyError):
        return {}


def _is_near(holder: dict[str, str | int]) -> bool:
    """Whether this process would see the holder among the machine's others."""
    here = _here()
    return bool(holder) and all(holder[key] == here[key] for key in ("host", "space"))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
