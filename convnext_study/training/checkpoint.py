"""The state of a run on disk: written to the side, synced, renamed, checked when read.

A checkpoint is torch's own zip file whose archive comment carries a SHA-256 of all that is before
it, so any flipped byte is noticed. The last two are kept; a damaged one is reported and the one
before it used. Reading never unpickles code (``weights_only``).
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convnext_study.records import CHECKPOINT, write_bytes

PREVIOUS = f"previous-{CHECKPOINT}"
# The zip format's end record: its signature, and 22 bytes of which the last two count the comment.
_END, _END_SIZE = b"PK\x05\x06", 22
_MARK = b"sha256:"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and the reason."""


def pack(state: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    if data[-_END_SIZE:-18] != _END:
        raise CheckpointError("torch.save wrote no zip end record; the checksum has no place")
    length = len(_MARK) + hashlib.sha256().digest_size
    data = data[:-2] + struct.pack("<H", length) + _MARK
    return data + hashlib.sha256(data).digest()


def unpack(data: bytes, name: str) -> dict[str, Any]:
    """The state in a checkpoint's bytes. Raises CheckpointError, naming the file."""
    body, digest = data[:-32], data[-32:]
    if not body.endswith(_MARK) or hashlib.sha256(body).digest() != digest:
        raise CheckpointError(f"{name}: damaged (its checksum does not fit)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        raise CheckpointError(
            f"{name}: refused, it holds more than tensors and plain values"
        ) from error
    return state


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the newest checkpoint; the one before it stays under another name."""
    newest = folder / CHECKPOINT
    data = pack(state)
    # A disk that is full must fail here, before the last good checkpoint is touched.
    side = folder / f".new-{CHECKPOINT}"
    write_bytes(side, data)
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    side.replace(newest)


def load(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Damaged ones are told to ``warn``."""
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return unpack(path.read_bytes(), str(path))
        except CheckpointError as error:
            warn(f"{error}; trying the one before it")
    return None
