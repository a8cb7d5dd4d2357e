"""The files of a run, which the engine writes and everything else reads (no torch here).

A run owns one folder: ``run.json`` what was asked, ``log.jsonl`` one line per epoch and an event,
``last.ckpt`` the state to resume from, ``result.json`` written last, so that its presence means
done. A study is a folder of runs, and the ledger is what a scan of it finds.
"""

from __future__ import annotations

import collections
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convnext_study.errors import UserError
from convnext_study.runs import locks
from convnext_study.runs.files import TEMPORARY
from convnext_study.runs.keys import digest_of
from convnext_study.runs.log import LOG, read_lines
from convnext_study.runs.metrics import Measured

FORMAT = 2
# In a run's metadata: the run that it starts from decides its network, and `model` is the largest
# that it can be.
NETWORK_IS_BOUND = "network_is_bound"
RUN, CHECKPOINT, RESULT, LOCK = "run.json", "last.ckpt", "result.json", "lock"
_REPAIR = "; put it back, or remove the folder and train again"

Status = Literal["new", "unfinished", "running", "failed", "done"]


class RecordError(UserError):
    """The record in ``folder`` cannot be read, for that ``reason``."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder = folder
        self.reason = reason


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Plain):
    """What to build, and its arguments: a builder of this package by its short name (``roadmap``,
    ``timm``, ``file``, a study's own), or ``module:function`` of the user's."""

    builder: str
    args: dict[str, Any]


class TaskRef(_Plain):
    """What is learned, and its arguments: ``classification``, another task of this package or of
    a study by its short name, or ``module:Class`` of the user's."""

    name: str = "classification"
    args: dict[str, Any] = Field(default_factory=dict)


class Run(_Plain):
    """What is asked of the engine, in plain values. Two runs with one key are the same run.

    ``init_from`` is the key of the run that has to be done before: what is taken of it (weights,
    an architecture) is the task's to say. ``metadata`` ride along for tables and figures (label,
    place on the road): they are no part of the key, since they change no result. Nor is the place
    of data where ``data_id`` says what lies there (`data.fingerprint.data_id`); without it
    ``data``, a URI, has to say that by itself.
    """

    study: str
    name: str
    model: ModelRef
    recipe: dict[str, Any]
    data: str
    seed: int
    task: TaskRef = Field(default_factory=TaskRef)
    init_from: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    data_id: str | None = None

    @property
    def data_identity(self) -> str:
        """What the data is: the same for the same data in another place."""
        return self.data if self.data_id is None else self.data_id

    @property
    def key(self) -> str:
        """Hex digest of everything that decides the result."""
        rest: dict[str, Any] = {
            "data": self.data_identity,
            "seed": self.seed,
            "task": self.task.name,
        }
        if self.task.args:
            rest["task_args"] = self.task.args
        if self.init_from is not None:
            rest["init_from"] = self.init_from
        return digest_of(self.model.model_dump(), self.recipe, rest)

    @property
    def id(self) -> str:
        """The folder's name, and the run's name in wandb: stable over resumes."""
        return f"{self.name}-s{self.seed}-{self.key[:8]}"


class Epoch(BaseModel):
    """One line of the log: the state after ``epoch`` (from 1) of ``epochs``.

    ``metrics`` are values on the validation part, the ``primary`` one among them; empty after an
    epoch that was not evaluated. ``label`` and ``unit`` are the primary one's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    event: Literal["epoch"] = "epoch"
    epoch: int
    epochs: int
    loss: float
    lr: float
    metrics: dict[str, float]
    primary: str
    label: str = ""
    unit: str = ""
    seconds: float  # of this epoch, evaluation included
    images_per_s: float  # training only

    @property
    def value(self) -> float | None:
        """The primary metric's value; None where the epoch was not evaluated."""
        return self.metrics.get(self.primary)


class Result(Measured):
    """The outcome of a finished run: after the last epoch, never the best of all epochs."""

    val_images: int
    images_per_s: float  # training throughput, the median epoch's
    seconds: float  # all training and evaluation, over all resumes
    epochs: int
    model: ModelRef | None = None  # what was trained, where the run alone does not say it


class Record(BaseModel):
    """A run as its folder shows it."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    run: Run
    manifest: dict[str, Any]  # run.json whole: versions, commit, machine
    epochs: list[Epoch]
    events: list[dict[str, Any]]
    result: Result | None
    status: Status


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed left of a run's files; nobody else may be writing."""
    for name in (RUN, LOG, CHECKPOINT, RESULT):
        for path in folder.glob(f".{name}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Whether a living process works on this run."""
    return locks.is_held(folder / LOCK)


def read_run_file(folder: Path) -> dict[str, Any]:
    """``run.json`` as it stands. Raises RecordError, also for a format of a later version."""
    with _reading(folder, RUN, _REPAIR):
        try:
            about = json.loads((folder / RUN).read_text())
        except FileNotFoundError:
            reason = "holds no run; name the folder of one run"
            if (folder / RESULT).exists():
                reason = f"has a result, but no {RUN} that says of what{_REPAIR}"
            raise RecordError(folder, reason) from None
        written = about.get("format", FORMAT)
    if written != FORMAT:
        said = f"not a readable run record (format {written!r})"
        if isinstance(written, int) and written > FORMAT:
            said = f"format {written} is newer than this version reads ({FORMAT})"
            said += "; update convnext-study"
        elif written in range(1, FORMAT):
            said = f"format {written} is of an earlier version, which this one does not read"
            said += "; train it again in another folder"
        raise RecordError(folder, said)
    return dict(about)


def read(folder: Path) -> Record:
    """The record of one run. Raises RecordError where there is none that can be read."""
    asked = read_run_file(folder)
    with _reading(folder, RUN, _REPAIR):
        run = Run.model_validate(asked["run"])
    with _reading(folder, LOG):
        lines = read_lines(folder / LOG)
        epochs = {
            line["epoch"]: Epoch.model_validate(line)
            for line in lines
            if line.get("event") == "epoch"
        }
    result = None
    if (folder / RESULT).exists():
        with _reading(folder, RESULT, "; remove it and train again: the run goes on from its end"):
            result = Result.model_validate_json((folder / RESULT).read_text())
    if asked.get("key") != run.key:
        raise RecordError(
            folder,
            "its key is not that of the run it describes: it was changed by hand, or made by a "
            "version with other defaults",
        )
    events = [line for line in lines if line.get("event") != "epoch"]
    return Record(
        folder=folder,
        run=run,
        manifest=asked,
        epochs=[epochs[number] for number in sorted(epochs)],
        events=events,
        result=result,
        status=_status(folder, events, bool(epochs), result),
    )


@contextlib.contextmanager
def _reading(folder: Path, name: str, advice: str = "") -> Iterator[None]:
    try:
        yield
    except RecordError:
        raise
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"not a readable run record ({name}: {_one_line(error)}){advice}"
        raise RecordError(folder, reason) from error


def _status(folder: Path, events: list[dict[str, Any]], begun: bool, result: Any) -> Status:
    if result is not None:
        return "done"
    if is_locked(folder):
        return "running"
    if events and events[-1].get("event") == "failed":
        return "failed"
    return "unfinished" if begun or events else "new"


def scan(study: Path, unreadable: list[RecordError] | None = None) -> Iterator[Record]:
    """The records of every run under a folder, in the order of their names.

    Those that cannot be read are passed over and added to ``unreadable``, to be told of.
    """
    files = study.rglob("r*.json")
    for folder in sorted({path.parent for path in files if path.name in (RUN, RESULT)}):
        try:
            record = read(folder)
        except RecordError as error:
            if unreadable is not None:
                unreadable.append(error)
        else:
            yield record


def unreadable_in(study: Path) -> list[RecordError]:
    """Why those runs under a folder cannot be read that `scan` passes over."""
    found: list[RecordError] = []
    collections.deque(scan(study, found), maxlen=0)
    return found


def tell_unreadable(unreadable: Sequence[RecordError]) -> str | None:
    """One line about the runs that were passed over; None where there are none."""
    if not unreadable:
        return None
    if len(unreadable) == 1:
        return f"one run is left out: {unreadable[0]}"
    return f"{len(unreadable)} runs are left out, since they cannot be read; one is {unreadable[0]}"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])
    return (str(error).splitlines() or [type(error).__name__])[0]
