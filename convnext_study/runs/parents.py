"""The record of the run that another one starts from, found by its key (no torch here)."""

from __future__ import annotations

from pathlib import Path

from convnext_study.errors import Busy, RunFailed
from convnext_study.runs.log import failure
from convnext_study.runs.records import Record, RecordError, Run, read


class ParentError(RunFailed):
    """A run cannot start, for the one it starts from is missing, not done, or was lost."""


def finished_parent(run: Run, folder: Path) -> Record | None:
    """The finished run that ``run``, in ``folder``, starts from; None where it starts from none.

    Looked for beside it, then in the folders of other studies beside its study's.

    Raises ParentError, one line, and Busy where another process trains that one.
    """
    if run.init_from is None:
        return None
    record = _find(run.init_from, folder)
    if record is None:
        raise ParentError(
            f"{folder}: the run it starts from ({run.init_from[:8]}) is not in "
            f"{folder.parent}; train that one first, with the same --out"
        )
    if record.status == "running":
        raise Busy(
            f"{folder}: the run it starts from is being trained by another process: "
            f"{record.folder.name}; give the same command again when that is done"
        )
    if record.result is None:
        reason = failure(record.events) if record.status == "failed" else None
        raise ParentError(
            f"{folder}: the run it starts from is {record.status}: {record.folder.name}"
            + (f" ({reason})" if reason else "")
        )
    return record


def _find(key: str, folder: Path) -> Record | None:
    name = f"*-{key[:8]}"
    runs = folder.absolute().parent  # OUT/STUDY/runs
    for path in (*sorted(runs.glob(name)), *sorted(runs.parent.parent.glob(f"*/runs/{name}"))):
        try:
            record = read(path)
        except RecordError:
            continue
        if record.run.key == key:
            return record
    return None
