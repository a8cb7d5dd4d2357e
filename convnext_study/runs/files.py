"""Files of runs and studies: written atomically, and read without trusting them.

Neither a reader nor a power cut leaves a partial file. A folder may come from anywhere, so only
regular files in it are opened, and no links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from convnext_study.errors import UserError, printable

# A run's files: what was requested, a line per epoch and event, the state to resume from and the
# one before it, the result, the lock; and, while it is trained, what it started from.
RUN, LOG, CHECKPOINT, PREVIOUS = "run.json", "log.jsonl", "last.ckpt", "previous-last.ckpt"
RESULT, LOCK = "result.json", "lock"
KEPT_RECORD, KEPT_WEIGHTS = "parent.json", "parent.ckpt"
RUNS = "runs"  # a study's folder of runs
TEMPORARY = ".tmp"  # suffix of files that are still being written
MAX_BYTES = 2**28  # bytes of a record's file; a larger sparse one would take no room on a disk
_MAX_DEPTH = 64  # nesting of lists and objects
_MAX_NAME_BYTES = 100  # bytes of a name made from a text; file systems allow 255
_UNSAFE = re.compile(r"[^\w-]+")
# Opening a link instead of a file would reach another file; opening a pipe could wait forever.
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file, with flags of ``os.open``.

    Raises OSError, also for a link, a folder, a pipe or a device.
    """
    try:
        handle = os.open(path, flags | _CAREFUL, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _no_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_file(path)
    return handle


def _no_file(path: Path) -> OSError:
    return OSError(errno.EINVAL, "a link or a special file, not a regular file", str(path))


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Raises OSError, also if it has more than ``most`` bytes."""
    with os.fdopen(open_regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB", str(path))
        return file.read()


def read_json(path: Path) -> Any:
    """The values in a JSON file; terminal control characters in its texts are replaced.

    Raises OSError, and ValueError for what is not JSON, is nested too deeply, or has integers of
    more than 64 bits.
    """
    return parse_json(read_bytes(path))


def parse_json(text: bytes) -> Any:
    """Like `read_json`, for bytes."""
    from pydantic_core import from_json

    return _clean(from_json(text))


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("an integer of more than 64 bits")
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {printable(name): _clean(item, depth + 1) for name, item in value.items()}
    return value


def open_to_append(path: Path) -> IO[str]:
    """A regular text file opened for appending, created if it does not exist."""
    handle = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return os.fdopen(handle, "a", encoding="utf-8", errors="replace")


def safe_name(text: str) -> str:
    """A text as a valid name of a file or folder; different texts have different names."""
    name = _UNSAFE.sub("_", text).encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    if name == text and name:
        return name
    return f"{name}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def make_within(folder: Path, *names: str) -> Path:
    """Make nested folders. Raises UserError if one is a link, which would lead elsewhere, and
    OSError."""
    for name in names:
        folder = folder / safe_name(name)
        if folder.is_symlink():
            raise UserError(f"{folder}: is a link; remove it, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_json(path: Path, value: Any, check: Callable[[], None] = lambda: None) -> None:
    """Write a temporary file, sync, rename: a reader sees the old file or the new one, complete.

    Raises what ``check`` raises, which is called right before the renaming, and OSError.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "replace"), check)


def write_bytes(path: Path, data: bytes, check: Callable[[], None] = lambda: None) -> None:
    """Like `write_json`, for bytes."""
    put_in_place(write_temporary(path, lambda file: file.write(data), check), path)


def make_folder(folder: Path) -> None:
    """Make a folder, unless it exists. Raises UserError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out"
        ) from None


def write_temporary(
    path: Path, write: Callable[[IO[bytes]], Any], check: Callable[[], None] = lambda: None
) -> Path:
    """A synced file beside ``path`` with what ``write`` writes; removed if ``write`` or ``check``,
    called after it, raises. An OSError names ``path``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        # The umask decides who may read it, which tempfile's functions ignore.
        handle = open_regular(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        with os.fdopen(handle, "wb+") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        check()
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # an error on an open file has no name
        raise
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete file to its final name, and sync the folder."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, if the file system can."""
    with contextlib.suppress(OSError):  # some network file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
