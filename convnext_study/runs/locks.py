"""Who works in a folder: locks that end with their holder, on any file system.

The kernel's lock (``flock``) is dropped when its holder dies. Where the file system has none, as
on some Lustre and FUSE mounts, a lease takes its place: a file with the holder's host and process,
whose time the holder renews. A lease ends when its holder lets go, when no such process lives on
the same machine, or when it was not renewed for five minutes. All machines that share a folder
must mount it alike.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import IO

ANOTHER = "another process"
LEASE = ".lease"  # how a lease's name ends, after the lock's
BEAT = 20.0  # seconds between renewals
STALE = 300.0  # seconds without one, after which the holder counts as dead
_STUCK = 10.0  # seconds; whoever looks at a lease to remove it needs less
_MOMENT = 1.0  # seconds; whoever looks whether a lock is held holds it for less
# "Function not implemented", "operation not supported", "no locks available", "invalid argument".
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class Held(Exception):
    """Another living process holds the lock; ``holder`` is that process, in words."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Lock:
    """A lock that this process holds until `release`, or its own end."""

    def __init__(self, file: IO[str], lease: _Lease | None = None) -> None:
        self._file = file
        self._lease = lease

    @property
    def is_lost(self) -> bool:
        """Whether another process took it over, having seen no sign of life from this one."""
        return self._lease is not None and self._lease.is_lost

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go. A second call does nothing."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        self._file.close()


def take(path: Path) -> Lock:
    """Lock the file ``path``, which is made where it is not and keeps the holder's name.

    Raises:
        Held: another process works here.
        OSError: the file cannot be opened, or not be locked for another reason.
    """
    file = path.open("a+")
    try:
        lease = None
        try:
            if not _flock(file):
                file.seek(0)
                raise Held(file.read().strip() or ANOTHER)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            lease = _Lease.take(_lease_of(path))
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    except BaseException:
        file.close()
        raise
    return Lock(file, lease)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock. Nothing is written, and nothing raised."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        lease = _lease_of(path)
        try:
            return lease.exists() and not _is_over(lease, _read(lease))
        except OSError:  # another user's
            return True
    return False


def _flock(file: IO[str]) -> bool:
    """Lock the file for this process. Returns whether it could. Raises OSError without flock."""
    deadline = time.monotonic() + _MOMENT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True


class _Lease:
    """A file that says who works here, renewed by a thread of the holder."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.is_lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, path: Path) -> _Lease:
        """Make the lease, or take over one whose holder is dead.

        A holder on another machine is given the time to renew it: one that was preempted is not
        coming back, and its run is about to go on here.
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
        self._end.set()
        self._thread.join()
        if not self.is_lost:
            _remove(self.path, self.text)


def _lease_of(path: Path) -> Path:
    return path.with_name(path.name + LEASE)


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
