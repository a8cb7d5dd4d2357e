"""Writing files so that a reader, or a machine that lost its power, never sees a part of one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from convnext_study.errors import UserError

TEMPORARY = ".tmp"  # how names of files end that are still being written


def write_json(path: Path, value: Any, check: Callable[[], None] = lambda: None) -> None:
    """Write to the side, sync, rename: a reader sees the old file or the new one, never a part.

    Raises what ``check`` raises, which is called right before the renaming, and OSError.
    """
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode(), check)


def write_bytes(path: Path, data: bytes, check: Callable[[], None] = lambda: None) -> None:
    """As ``write_json``, for bytes."""
    put_in_place(write_temporary(path, lambda file: file.write(data), check), path)


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there, and see that it takes files. Raises UserError."""
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
    """A synced file beside ``path`` with what ``write`` writes; gone again where that fails, or
    ``check`` after it. An OSError names ``path``."""
    try:
        return _write_temporary(path, write, check)
    except OSError as error:
        error.filename = str(path)  # writing to an open file names none
        raise


def _write_temporary(
    path: Path, write: Callable[[IO[bytes]], Any], check: Callable[[], None]
) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        check()
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete file to its name, for good: the folder is synced too."""
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):  # some network file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
