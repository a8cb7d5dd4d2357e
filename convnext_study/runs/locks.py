"""Who works in a folder: locks that end with their holder, on any file system.

The kernel's lock (``flock``) is dropped when its holder dies. Where the file system has none, as
on some Lustre and FUSE mounts, a lease takes its place (`runs/lease.py`). All machines that share
a folder must mount it alike.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import IO

from convnext_study.runs.lease import ANOTHER, Held, Lease, lease_of
from convnext_study.runs.lease import is_held as is_lease_held

__all__ = ["Held", "Lock", "is_held", "take"]

_MOMENT = 1.0  # seconds; whoever looks whether a lock is held holds it for less
# "Function not implemented", "operation not supported", "no locks available", "invalid argument".
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class Lock:
    """A lock that this process holds until `release`, or its own end."""

    def __init__(self, file: IO[str], lease: Lease | None = None) -> None:
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
            lease = Lease.take(lease_of(path))
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
        try:
            return is_lease_held(lease_of(path))
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
