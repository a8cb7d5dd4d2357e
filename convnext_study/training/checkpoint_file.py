"""The state of a run on disk: written to the side, synced, renamed, checked when read.

A checkpoint is torch's own zip file whose archive comment carries a SHA-256 of all that is before
it, so any flipped byte is noticed. The last two are kept; a damaged one is reported and the one
before it used. Reading never unpickles code (``weights_only``). Neither writing nor reading holds
the file in memory.
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

# The zip format's end record: its signature, and 22 bytes of which the last two count the comment.
_END, _END_SIZE = b"PK\x05\x06", 22
_MARK = b"sha256:"
_DIGEST_SIZE = hashlib.sha256().digest_size
_CHUNK = 1 << 20


class CheckpointError(RunFailed):
    """A checkpoint cannot be used; the message names the file and the reason."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was written; the one before it may serve."""


def write(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a checkpoint to an open file, which can be read too. Raises OSError."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # What torch says when a write fails is how far it had come, and not why.
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    file.seek(-_END_SIZE, os.SEEK_END)
    if file.read(_END_SIZE)[: len(_END)] != _END:
        raise CheckpointError("torch.save wrote no zip end record; the checksum has no place")
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", len(_MARK) + _DIGEST_SIZE) + _MARK)
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    file.seek(0, os.SEEK_END)
    file.write(sha256.digest())


def read(path: Path) -> dict[str, Any]:
    """The state in a file.

    Raises:
        DamagedError: the checksum does not fit.
        CheckpointError: it is what was written, and cannot be read here, or holds code.
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
                f"{path}: refused, it holds more than tensors and plain values"
            ) from error
        except MemoryError as error:
            raise CheckpointError(f"{path}: cannot be read (out of memory)") from error
        except Exception as error:  # torch raises a different type for each kind of trouble
            why = f"torch {torch.__version__} cannot read it ({first_line(error)})"
            raise CheckpointError(f"{path}: intact, but {why}") from error
    return state


def _check(file: IO[bytes], path: Path) -> None:
    """Raises DamagedError where the digest at the end does not fit what is before it."""
    left = os.fstat(file.fileno()).st_size - _DIGEST_SIZE
    sha256, end = hashlib.sha256(), b""
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        sha256.update(chunk)
        end = (end + chunk)[-len(_MARK) :]
        left -= len(chunk)
    if end != _MARK or file.read() != sha256.digest():
        raise DamagedError(f"{path}: damaged (its checksum does not fit)")


def digest(path: Path) -> str:
    """The checksum that a checkpoint carries, unchecked: which of several files it is."""
    with os.fdopen(open_regular(path), "rb") as file:
        file.seek(-_DIGEST_SIZE, os.SEEK_END)
        return file.read().hex()


def save(folder: Path, state: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Write the newest checkpoint; the one before it stays under another name.

    Raises what ``check`` raises, called right before either is touched, and OSError.
    """
    newest = folder / CHECKPOINT
    # A disk that is full must fail here, before the last good checkpoint is touched.
    temporary = write_temporary(newest, lambda file: write(state, file), check)
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    put_in_place(temporary, newest)


def find(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is not damaged, and its state; None where there is none at all.

    A damaged one is reported to ``warn``, and the one before it is read.

    Raises CheckpointError where one exists and none can be read: starting afresh would lose it.
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
            warn(f"{text}; trying the one before it")
        return path, state
    if damaged:
        raise CheckpointError(
            f"{'; '.join(damaged)}: no checkpoint is left to go on from; restore one, or move "
            "the folder away to start again"
        )
    return None


def load(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state that `find` finds. Raises as it does."""
    found = find(folder, warn)
    return found[1] if found else None
