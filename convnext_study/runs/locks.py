"""Locks of folders, in which one process works at a time.

The kernel's lock (``flock``) ends with its holder. On file systems without it, such as some
Lustre and FUSE mounts, a marker replaces it: a file that names process and host. It never
expires, since a suspended holder may continue. A dead process's marker is taken over on its own
host; on other hosts that cannot be detected, and the user has to remove it. All machines that
share a folder must mount it alike.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from filelock import BaseFileLock, SoftFileLock, Timeout, UnixFileLock

from convnext_study.runs.files import open_regular

MARKER = ".held"  # suffix of a marker, after the lock's name
_MOMENT = 1.0  # seconds; checking whether a lock is held takes it for less
# "Function not implemented", "operation not supported", "no locks available", "invalid argument".
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class Held(Exception):
    """Another process holds the lock: ``holder`` in words. ``cure`` is a further remedy if a
    ``marker`` stands for the lock, since its process may be dead."""

    def __init__(self, holder: str, marker: Path | None = None) -> None:
        super().__init__(holder)
        self.holder = holder
        self.cure = f", or remove {marker} if it is dead" if marker else ""


class Lock:
    """A lock that this process holds until `release` or its own end, or watches another hold.

    Args:
        file: the lock's file or marker.
        lock: the acquired lock; None if another process holds it.
    """

    def __init__(self, file: Path, lock: BaseFileLock | None = None) -> None:
        self._file, self._held = file, lock
        self._taken = _identity(file)

    @property
    def is_unchanged(self) -> bool:
        """Whether the file still exists with the same holder. Raises OSError."""
        try:
            return _identity(self._file) == self._taken
        except FileNotFoundError:
            return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._held is not None:
            self._held.release()


def take(
    path: Path, patience: float = _MOMENT, give_up: Callable[[], bool] = lambda: False
) -> Lock:
    """Lock the file ``path``, which is created if missing and names the holder.

    Raises:
        Held: another process holds it for ``patience`` seconds, or until ``give_up`` returns True.
        OSError: the file is a link, or cannot be opened or locked for another reason.
    """
    lock: BaseFileLock = UnixFileLock(
        path, patience, thread_local=False, fallback_to_soft=False, on_acquired=_write_holder
    )
    try:
        lock.acquire(cancel_check=give_up)
    except Timeout:
        raise Held(_holder(path)) from None
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        path = marker = marker_of(path)
        lock = SoftFileLock(marker, patience, thread_local=False)
        try:
            lock.acquire(cancel_check=give_up)
        except Timeout:
            raise Held(_holder(marker), marker) from None
    return Lock(path, lock)


def watch(path: Path) -> Lock:
    """The lock that another process has just taken. Raises OSError if there is none."""
    marker = marker_of(path)
    return Lock(marker if marker.exists() else path)


def marker_of(path: Path) -> Path:
    """The file that replaces a lock on file systems without locks."""
    return path.with_name(path.name + MARKER)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock. Raises nothing, and writes nothing, but removes a
    marker that a dead process left on this host.
    """
    try:
        handle = open_regular(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(handle)
    except BlockingIOError:
        return True
    except OSError:
        marker = marker_of(path)
        if not marker.exists():
            return False
        try:
            SoftFileLock(marker, timeout=0).acquire().lock.release()
        except OSError:  # it times out, or is another user's
            return True
    return False


def _write_holder(handle: int) -> None:
    """Write the holder's process and host into the lock's file, unless it is linked or a pipe."""
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n{socket.gethostname()}\n".encode(), 0)


def _identity(path: Path) -> tuple[int, int, bytes]:
    """The file's identity and its holder; opened, so that network file systems look again."""
    handle = open_regular(path)
    try:
        status = os.fstat(handle)
        return status.st_dev, status.st_ino, os.read(handle, 1024)
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    """The holder that a lock's file or a marker names: both begin with a process and its host."""
    try:
        match = re.match(r"(\d+)\n([\w.-]+)", _identity(path)[2].decode(errors="replace"))
    except OSError:
        match = None
    return f"process {match[1]} on {match[2]}" if match else "another process"
