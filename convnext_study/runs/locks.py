"""Who works in a folder: one process at a time.

The kernel's lock (``flock``) ends with its holder. Where the file system has none, as on some
Lustre and FUSE mounts, a marker takes its place: a file that names process and host. It never
expires, since a holder that sleeps may wake. A dead process's marker is taken over on its own
host; elsewhere nobody can tell, and a person removes it. All machines that share a folder must
mount it alike.
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

MARKER = ".held"  # how a marker's name ends, after the lock's
_MOMENT = 1.0  # seconds; whoever looks whether a lock is held holds it for less
# "Function not implemented", "operation not supported", "no locks available", "invalid argument".
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class Held(Exception):
    """Another process holds the lock: ``holder`` in words; ``cure`` ends what to do about it, where
    a ``marker``, the file that says so, may be a dead one's."""

    def __init__(self, holder: str, marker: Path | None = None) -> None:
        super().__init__(holder)
        self.holder = holder
        self.cure = f", or remove {marker} if it is dead" if marker else ""


class Lock:
    """A lock that this process holds until `release` or its own end, or sees another hold.

    Args:
        file: that stands for it.
        held: by this process.
    """

    def __init__(self, file: Path, held: BaseFileLock | None = None) -> None:
        self._file, self._held = file, held
        self._taken = _look(file)

    @property
    def is_as_taken(self) -> bool:
        """Whether the file is still there and nobody else's. Raises OSError."""
        try:
            return _look(self._file) == self._taken
        except FileNotFoundError:
            return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go. A second call does nothing."""
        if self._held is not None:
            self._held.release()


def take(
    path: Path, patience: float = _MOMENT, give_up: Callable[[], bool] = lambda: False
) -> Lock:
    """Lock the file ``path``, which is made where it is not and keeps the holder's name.

    Raises:
        Held: another process holds it, ``patience`` seconds long or until ``give_up`` says so.
        OSError: the file cannot be opened, or not be locked for another reason; it is a link.
    """
    lock: BaseFileLock = UnixFileLock(
        path, patience, thread_local=False, fallback_to_soft=False, on_acquired=_sign
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
    """The lock that another process has just taken. Raises OSError where there is none."""
    marker = marker_of(path)
    return Lock(marker if marker.exists() else path)


def marker_of(path: Path) -> Path:
    """The file that stands for a lock where the file system has none."""
    return path.with_name(path.name + MARKER)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock. Nothing raised.

    Nothing is written either, but that a marker which a dead process left on this host is removed.
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


def _sign(handle: int) -> None:
    """Write who holds a lock into its file, unless that has other names, or is a pipe."""
    about = os.fstat(handle)
    if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n{socket.gethostname()}\n".encode(), 0)


def _look(path: Path) -> tuple[int, int, bytes]:
    """Which file that is, and who holds it: opened, since a network's file may be another now."""
    handle = open_regular(path)
    try:
        about = os.fstat(handle)
        return about.st_dev, about.st_ino, os.read(handle, 1024)
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    """Whoever a lock's file or a marker names: both begin with a process and its host."""
    try:
        found = re.match(r"(\d+)\n([\w.-]+)", _look(path)[2].decode(errors="replace"))
    except OSError:
        found = None
    return f"process {found[1]} on {found[2]}" if found else "another process"
