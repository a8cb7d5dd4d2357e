"""Checkpoint files: written to a temporary file, synced, renamed, verified when read.

A checkpoint is torch's own zip file whose archive comment has a SHA-256 of everything before it,
so any flipped byte is noticed. The last two are kept; a damaged one is reported and the one
before it used. Reading never unpickles code (``weights_only``). Neither writing nor reading loads
the whole file into memory.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from convnext_study.errors import RunFailed, first_line
from convnext_study.runs.files import (
    CHECKPOINT,
    PREVIOUS,
    open_regular,
    put_in_place,
    write_temporary,
)

# The zip format's end record: its signature, and its 22 bytes; the last two are the comment's size.
_END, _END_SIZE = b"PK\x05\x06", 22
_MARK = b"sha256:"
_DIGEST_SIZE = hashlib.sha256().digest_size
_CHUNK = 1 << 20


class CheckpointError(RunFailed):
    """A checkpoint cannot be used; the message names the file and the reason."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was written; the one before it may be intact."""


def write(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a checkpoint to a file that is open for reading and writing. Raises OSError."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch's message about a failed write gives the position and not the reason.
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    file.seek(-_END_SIZE, os.SEEK_END)
    if file.read(_END_SIZE)[: len(_END)] != _END:
        raise CheckpointError(
            "torch.save wrote no zip end record, so there is no place for the checksum"
        )
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", len(_MARK) + _DIGEST_SIZE) + _MARK)
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    file.seek(0, os.SEEK_END)
    file.write(sha256.digest())


def read(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        DamagedError: the checksum does not match.
        CheckpointError: it is intact, but cannot be read here or contains code.
        FileNotFoundError: there is none.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            _check(file, path)
            file.seek(0)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except CheckpointError:
            raise
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path}: refused, contains more than tensors and plain values"
            ) from error
        except MemoryError as error:
            raise CheckpointError(f"{path}: cannot be read (out of memory)") from error
        except Exception as error:  # torch raises many types
            reason = f"torch {torch.__version__} cannot read it ({first_line(error)})"
            raise CheckpointError(f"{path}: intact, but {reason}") from error
    return state


def _check(file: IO[bytes], path: Path) -> None:
    """Raises DamagedError if the digest at the end does not match what is before it."""
    remaining = os.fstat(file.fileno()).st_size - _DIGEST_SIZE
    sha256, tail = hashlib.sha256(), b""
    while remaining > 0 and (chunk := file.read(min(_CHUNK, remaining))):
        sha256.update(chunk)
        tail = (tail + chunk)[-len(_MARK) :]
        remaining -= len(chunk)
    if tail != _MARK or file.read() != sha256.digest():
        raise DamagedError(f"{path}: damaged (its checksum does not match)")


def digest(path: Path) -> str:
    """The checksum stored in a checkpoint, not verified: it identifies the file."""
    with os.fdopen(open_regular(path), "rb") as file:
        file.seek(-_DIGEST_SIZE, os.SEEK_END)
        return file.read().hex()


def save(folder: Path, state: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Write the newest checkpoint; the one before it is kept under another name.

    Raises what ``check`` raises, called right before either is replaced, and OSError.
    """
    newest = folder / CHECKPOINT
    # A full disk must fail here, before the last good checkpoint is replaced.
    temporary = write_temporary(newest, lambda file: write(state, file), check)
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    put_in_place(temporary, newest)


def find(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint and its state; None if there is no checkpoint at all.

    A damaged one is reported to ``warn``, and the one before it is read.

    Raises CheckpointError if there are some and none can be read: starting afresh would lose them.
    """
    damaged: list[str] = []
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        try:
            state = read(path)
        except FileNotFoundError:
            continue
        except DamagedError as error:
            damaged.append(str(error))
            continue
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
        for text in damaged:
            warn(f"{text}; trying the previous one")
        return path, state
    if damaged:
        raise CheckpointError(
            f"{'; '.join(damaged)}: no usable checkpoint is left; restore one, or move the folder "
            "away to start over"
        )
    return None


def load(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state that `find` returns. Raises as it does."""
    newest = find(folder, warn)
    return newest[1] if newest else None
