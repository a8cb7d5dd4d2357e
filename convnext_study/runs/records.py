"""The files of a run, which the engine writes and everything else reads (no torch here).

A run has one folder: ``run.json`` with what was requested, ``log.jsonl`` with one line per epoch
and event, ``last.ckpt`` with the state to resume from, and ``result.json``, written last, so that
its presence means done. A study is a folder of runs.
"""

from __future__ import annotations

import collections
import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from convnext_study.errors import UserError, one_line, reason_of
from convnext_study.runs import locks
from convnext_study.runs.files import CHECKPOINT, LOCK, LOG, RESULT, RUN, TEMPORARY, read_json
from convnext_study.runs.keys import digest_of
from convnext_study.runs.log import EPOCH, About, events_of, read_lines
from convnext_study.runs.metrics import Count, Finite, FrozenModel, Measured, Number, Plain, Text

FORMAT = 2
# In a run's metadata: its parent decides its network, and `model` is the largest that it can be.
NETWORK_IS_BOUND = "network_is_bound"
# Its parent decides how long it is trained: about this many epochs.
EXPECTED_EPOCHS = "expected_epochs"
CAVEAT = "caveat"  # one line for the plan
_REDO = "; remove it and train again: the run continues from its end"
_REPAIR = "; put it back, or remove the folder and train again"

Status = Literal["new", "unfinished", "running", "failed", "done"]


class RecordError(UserError):
    """The record in ``folder`` cannot be read, for the given ``reason``."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(one_line(f"{folder}: {reason}"))
        self.folder = folder
        self.reason = reason


class _Known(BaseModel):
    """Checks the fields that are read; others may be present."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Facts(_Known):
    """The metadata of a run that tables and figures read; a study may add to it."""

    label: Plain = None
    regime: Text | None = None
    section: Text | None = None
    parent: Text | None = None
    step: Text | None = None
    recipe: Text | None = None
    study_kind: Text | None = None
    networks: Text | None = None
    order: Finite | None = None
    adopted: bool = True
    published: bool = False
    may_differ: Text | list[Text] | tuple[Text, ...] | None = None


class _Settings(_Known):
    """The fields of a run's recipe that tables and figures read."""

    name: Text | None = None
    epochs: Count | None = None


class _Part(_Known):
    images: Count = 0


class _Fingerprint(_Known):
    classes: Count | None = None
    train: _Part = _Part()
    val: _Part = _Part()


class _Manifest(_Known):
    """The fields of ``run.json`` that are read, other than the run."""

    versions: About | None = None
    hardware: About | None = None
    commit: Text | None = None
    data: _Fingerprint | None = None


def _checked_by(kind: type[BaseModel]) -> Any:
    """Validates a dict by a model, and keeps it as it was written."""

    def check(values: dict[str, Any]) -> dict[str, Any]:
        kind.model_validate(values)
        return values

    return AfterValidator(check)


def _as_folder(name: str) -> str:
    if not name or "/" in name or not name.isprintable():
        raise ValueError("is not a valid folder name")
    return name


class ModelRef(FrozenModel):
    """The builder of a network and its arguments: by its short name (``roadmap``, ``timm``,
    ``file``, a study's own), or a user's ``module:function``."""

    builder: Text
    args: dict[str, Any]


class TaskRef(FrozenModel):
    """A task and its arguments: ``classification``, another task of this package or of a study by
    its short name, or a user's ``module:Class``."""

    name: Text = "classification"
    args: dict[str, Any] = Field(default_factory=dict)


class Run(FrozenModel):
    """What the engine is to train, in plain values. Runs with equal keys are the same run.

    ``init_from`` is the key of the run that has to be done before: the task decides what is used
    of it (weights, an architecture). ``metadata`` are for tables and figures (label, position on
    the road): they are not part of the key, since they change no result. Nor is the path of the
    data if ``data_id`` identifies its content (`data.data_id`); without it, ``data``, a URI, is
    the identity.
    """

    study: Text
    name: Annotated[Text, AfterValidator(_as_folder)]
    model: ModelRef
    recipe: Annotated[dict[str, Any], _checked_by(_Settings)]
    data: str
    seed: int = Field(ge=0, lt=2**63)
    task: TaskRef = Field(default_factory=TaskRef)
    init_from: Text | None = None
    metadata: Annotated[dict[str, Any], _checked_by(_Facts)] = Field(default_factory=dict)
    data_id: str | None = None

    @property
    def data_identity(self) -> str:
        """Identifies the data, independently of its path."""
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
        """The folder's name, and the run's name in wandb; the same after a resume."""
        return f"{self.name}-s{self.seed}-{self.key[:8]}"


class Epoch(BaseModel):
    """One line of the log: the state after ``epoch`` (from 1) of ``epochs``.

    ``metrics`` are values on the validation part, including the ``primary`` one; empty for an
    epoch that was not evaluated. ``label`` and ``unit`` are the primary metric's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    event: Literal["epoch"] = "epoch"
    epoch: int = Field(ge=1, le=10**9)
    epochs: int = Field(ge=1, le=10**9)
    loss: Number
    lr: Number
    metrics: dict[Text, Number]
    primary: Text
    label: Text = ""
    unit: Text = ""
    seconds: Finite  # of this epoch, evaluation included
    images_per_s: Finite  # training only

    @property
    def value(self) -> float | None:
        """The primary metric's value; None if the epoch was not evaluated."""
        return self.metrics.get(self.primary)


class Result(Measured):
    """The outcome of a finished run: of the last epoch, never the best of all epochs."""

    val_images: Count
    images_per_s: Finite  # training throughput, the median epoch's
    seconds: Finite  # all training and evaluation, over all resumes
    epochs: Count
    model: ModelRef | None = None  # the trained network, if the run does not define it
    skipped_steps: Count = 0
    corrupt_images: Count = 0
    corrupt_val_images: Count = 0
    peak_memory: Finite | None = None  # bytes, of the first process


class Record(BaseModel):
    """A run as read from its folder."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    run: Run
    manifest: dict[str, Any]  # all of run.json: versions, commit, machine
    epochs: list[Epoch]
    events: list[dict[str, Any]]
    result: Result | None
    status: Status


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files that killed writers left; no other process may be writing."""
    for name in (RUN, LOG, CHECKPOINT, RESULT):
        for path in folder.glob(f".{name}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Whether a process is working on this run."""
    return locks.is_held(folder / LOCK)


def read_run_file(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``. Raises RecordError, also for the format of another version."""
    with _reading(folder, RUN, _REPAIR):
        try:
            manifest = read_json(folder / RUN)
        except FileNotFoundError:
            reason = "contains no runs; name the folder of one run"
            if (folder / RESULT).exists():
                reason = f"has a result, but no {RUN} to describe the run{_REPAIR}"
            raise RecordError(folder, reason) from None
        version = manifest.get("format", FORMAT)
        if version == FORMAT:
            _Manifest.model_validate(manifest)
    if version != FORMAT:
        message = f"has format {version!r:.100}, which this version cannot read ({FORMAT}); "
        is_newer = isinstance(version, int) and version > FORMAT
        message += "update convnext-study" if is_newer else "train it again in another folder"
        raise RecordError(folder, message)
    return dict(manifest)


def read(folder: Path) -> Record:
    """The record of one run. Raises RecordError if there is no readable one."""
    manifest = read_run_file(folder)
    with _reading(folder, RUN, _REPAIR):
        run = Run.model_validate(manifest["run"])
    with _reading(folder, LOG):
        lines = read_lines(folder / LOG)
        logged = [Epoch.model_validate(line) for line in lines if line.get("event") == EPOCH]
        epochs = {line.epoch: line for line in logged}
        events = events_of(lines)
    result = None
    if (folder / RESULT).is_symlink() or (folder / RESULT).exists():
        result = read_result(folder)
    if manifest.get("key") != run.key:
        raise RecordError(
            folder,
            "its key does not match the run it describes: it was edited, or made by a version "
            "with other defaults",
        )
    return Record(
        folder=folder,
        run=run,
        manifest=manifest,
        epochs=[epochs[number] for number in sorted(epochs)],
        events=events,
        result=result,
        status=_status(folder, events, bool(epochs), result),
    )


def read_result(folder: Path) -> Result:
    """A finished run's result. Raises RecordError if there is no readable one."""
    with _reading(folder, RESULT, _REDO):
        result = Result.model_validate(read_json(folder / RESULT))
        if math.isnan(result.value):
            raise ValueError(f"{result.primary}: not a number")
    return result


def is_done(folder: Path) -> bool:
    """Whether a run has a readable result. Without one it is trained or resumed."""
    try:
        read_result(folder)
    except RecordError:
        return False
    return True


@contextlib.contextmanager
def _reading(folder: Path, name: str, advice: str = "") -> Iterator[None]:
    try:
        yield
    except RecordError:
        raise
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"not a readable run record ({name}: {reason_of(error)}){advice}"
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
    """The records of all runs under a folder, in the order of their names.

    Unreadable ones are skipped and added to ``unreadable``.
    """
    files = study.rglob("r*.json")
    for folder in sorted({path.parent for path in files if path.name in (RUN, RESULT)}):
        try:
            record = read(folder)
            _check_samples(record)
        except RecordError as error:
            if unreadable is not None:
                unreadable.append(error)
        else:
            yield record


def _check_samples(record: Record) -> None:
    """Raises RecordError for unusable evidence, which is otherwise read much later."""
    with _reading(record.folder, RESULT, _REDO):
        for metric in record.result.metrics.values() if record.result else ():
            if metric.samples is not None:
                metric.samples.check()


def unreadable_in(study: Path) -> list[RecordError]:
    """The errors of the runs under a folder that `scan` skips."""
    unreadable: list[RecordError] = []
    collections.deque(scan(study, unreadable), maxlen=0)
    return unreadable


def describe_unreadable(unreadable: Sequence[RecordError]) -> str | None:
    """One line about the runs that were skipped; None if there are none."""
    if not unreadable:
        return None
    if len(unreadable) == 1:
        return f"one run is left out: {unreadable[0]}"
    count = len(unreadable)
    return f"{count} runs are left out because they cannot be read, for example {unreadable[0]}"
