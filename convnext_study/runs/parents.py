"""Finds the record of the run that another one starts from, by its key (no torch here).

A run that has begun keeps a copy of what it started from until it is done, since its parent may
be removed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from convnext_study.errors import Busy, RunFailed
from convnext_study.runs.files import (
    CHECKPOINT,
    KEPT_RECORD,
    KEPT_WEIGHTS,
    RUNS,
    TEMPORARY,
    put_in_place,
    write_json,
)
from convnext_study.runs.log import failure
from convnext_study.runs.records import Record, RecordError, Run, read


class ParentError(RunFailed):
    """A run cannot start, because its parent is missing, not done, or lost."""


def finished_parent(run: Run, folder: Path) -> Record | None:
    """The finished run that ``run``, in ``folder``, starts from; None if it starts from none.

    It is searched for beside the run, then in the other studies beside its study.

    Raises ParentError, one line, and Busy if another process is training the parent.
    """
    if run.init_from is None:
        return None
    record = _find(run.init_from, folder)
    if record is None:
        raise ParentError(
            f"{folder}: its parent run ({run.init_from[:8]}) is not in {folder.parent}; train "
            "that first, with the same --out"
        )
    if record.status == "running":
        raise Busy(
            f"{folder}: its parent run is being trained by another process: {record.folder.name}; "
            "rerun the same command when that is done"
        )
    if record.result is None:
        reason = failure(record.events) if record.status == "failed" else None
        raise ParentError(
            f"{folder}: its parent run is {record.status}: {record.folder.name}"
            + (f" ({reason})" if reason else "")
        )
    return record


def check_parent(run: Run, folder: Path) -> None:
    """Raises as `finished_parent` does, and ParentError if the parent's weights are lost, unless
    ``run`` has begun in ``folder`` and keeps a copy of them."""
    if (folder / KEPT_RECORD).exists():
        return
    record = finished_parent(run, folder)
    if record is not None and not (record.folder / CHECKPOINT).exists():
        raise lost_weights(record, folder, "is missing")


def lost_weights(record: Record, folder: Path, reason: str) -> ParentError:
    """The error for a finished parent whose weights are lost; it has to be removed, because a run
    with a result is not trained again."""
    return ParentError(
        f"{record.folder / CHECKPOINT}: {reason}, but {folder.name} starts from it; restore it, "
        f"or remove {record.folder} and train that run again"
    )


def keep_parent(record: Record, folder: Path) -> None:
    """Keep a parent's record and last checkpoint in its child's folder: the checkpoint as a hard
    link, since the file is never written to, or a copy on file systems without links."""
    if (folder / KEPT_RECORD).exists():
        return
    temporary = folder / f".{KEPT_WEIGHTS}{TEMPORARY}"
    temporary.unlink(missing_ok=True)
    try:
        os.link(record.folder / CHECKPOINT, temporary)
    except OSError:
        shutil.copyfile(record.folder / CHECKPOINT, temporary)
    put_in_place(temporary, folder / KEPT_WEIGHTS)
    write_json(folder / KEPT_RECORD, record.model_dump(mode="json"))


def kept_parent(run: Run, folder: Path) -> Record | None:
    """The record that `keep_parent` kept; None if there is none of this run's parent."""
    try:
        record = Record.model_validate_json((folder / KEPT_RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return record if record.run.key == run.init_from else None


def forget_parent(folder: Path) -> None:
    """Remove what `keep_parent` kept, when the run is done."""
    for name in (KEPT_RECORD, KEPT_WEIGHTS):
        (folder / name).unlink(missing_ok=True)


def _find(key: str, folder: Path) -> Record | None:
    name = f"*-{key[:8]}"
    runs = folder.absolute().parent  # OUT/STUDY/runs
    for path in (*sorted(runs.glob(name)), *sorted(runs.parent.parent.glob(f"*/{RUNS}/{name}"))):
        try:
            record = read(path)
        except RecordError:
            continue
        if record.run.key == key:
            return record
    return None
