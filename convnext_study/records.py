"""The files of a run, which the engine writes and everything else reads (no torch here).

A run owns one folder: ``run.json`` what was asked, ``log.jsonl`` one line an epoch and an event,
``last.ckpt`` the state to resume from, ``result.json`` written last, so that its presence means
done. A study is a folder of runs, and the ledger is what a scan of it finds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convnext_study.errors import BadRequest

FORMAT = 1
RUN, LOG, CHECKPOINT, RESULT, LOCK = "run.json", "log.jsonl", "last.ckpt", "result.json", "lock"
TEMPORARY = ".tmp"  # how names of files end that are still being written

Status = Literal["new", "unfinished", "running", "failed", "done"]


class RecordError(BadRequest):
    """A record cannot be read; the message names the file."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Plain):
    """What to build: ``module:function`` of this package or of the user's, and its arguments."""

    builder: str
    args: dict[str, Any]


class Run(_Plain):
    """What is asked of the engine, in plain values. Two runs with one key are the same run.

    ``facts`` ride along for tables and figures (label, place on the road): they are no part of
    the key, since they change no result.
    """

    study: str
    name: str
    model: ModelRef
    recipe: dict[str, Any]
    data: str
    seed: int
    task: str = "classification"
    facts: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hex digest of everything that decides the result."""
        decides = self.model_dump(exclude={"study", "name", "facts"})
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def id(self) -> str:
        """The folder's name, and the run's name in wandb: stable over resumes."""
        return f"{self.name}-s{self.seed}-{self.key[:8]}"


class Epoch(BaseModel):
    """One line of the log: the state after ``epoch`` (from 1) of ``epochs``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    event: Literal["epoch"] = "epoch"
    epoch: int
    epochs: int
    loss: float
    lr: float
    top1: float  # percent, on the validation set
    val_loss: float
    seconds: float  # of this epoch, evaluation included
    images_per_s: float  # training only


class Result(BaseModel):
    """The outcome of a finished run."""

    model_config = ConfigDict(frozen=True, extra="allow")

    top1: float  # percent, after the last epoch: never the best of all epochs
    val_loss: float
    val_images: int
    correct: str  # hex, one bit for each validation image in order, for paired tests
    macs: int  # convolution and linear, one image at the data's size
    params: int
    activations: int
    images_per_s: float  # training throughput, the median epoch's
    seconds: float  # all training and evaluation, over all resumes
    epochs: int


class Record(BaseModel):
    """A run as its folder shows it."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    run: Run
    asked: dict[str, Any]  # run.json whole: versions, commit, machine
    epochs: list[Epoch]
    events: list[dict[str, Any]]
    result: Result | None
    status: Status


def write_json(path: Path, value: Any) -> None:
    """Write to the side, sync, rename: a reader sees the old file or the new one, never a part."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """As ``write_json``, for bytes."""
    put_in_place(write_temporary(path, lambda file: file.write(data)), path)


def write_temporary(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """A synced file beside ``path`` with what ``write`` writes; gone again where that fails."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
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


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left of a run's files; nobody else may be writing."""
    for name in (RUN, LOG, CHECKPOINT, RESULT):
        for path in folder.glob(f".{name}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log. A last line that was cut short by a kill is left out."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def is_locked(folder: Path) -> bool:
    """Whether a living process works on this run (the kernel drops the lock of a dead one)."""
    path = folder / LOCK
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read(folder: Path) -> Record:
    """The record of one run. Raises RecordError for a folder that holds none, or a damaged one."""
    try:
        asked = json.loads((folder / RUN).read_text())
        run = Run.model_validate(asked["run"])
        lines = read_lines(folder / LOG)
        epochs = {
            line["epoch"]: Epoch.model_validate(line)
            for line in lines
            if line.get("event") == "epoch"
        }
        result = None
        if (folder / RESULT).exists():
            result = Result.model_validate_json((folder / RESULT).read_text())
    except (OSError, KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"{folder}: not a readable run record ({reason})") from error
    events = [line for line in lines if line.get("event") != "epoch"]
    return Record(
        folder=folder,
        run=run,
        asked=asked,
        epochs=[epochs[number] for number in sorted(epochs)],
        events=events,
        result=result,
        status=_status(folder, events, bool(epochs), result),
    )


def _status(folder: Path, events: list[dict[str, Any]], begun: bool, result: Any) -> Status:
    if result is not None:
        return "done"
    if is_locked(folder):
        return "running"
    if events and events[-1].get("event") == "failed":
        return "failed"
    return "unfinished" if begun or events else "new"


def scan(study: Path) -> Iterator[Record]:
    """The records of every run under a folder, in the order of their names; others are passed."""
    for path in sorted(study.rglob(RUN)):
        yield read(path.parent)
