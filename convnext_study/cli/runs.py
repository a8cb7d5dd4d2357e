"""``runs list`` and ``runs clean``: list a folder's runs, and remove what is no longer needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convnext_study.cli.options import Json, print_json, print_tables, warn_of_unreadable
from convnext_study.errors import Busy, RunFailed, UserError
from convnext_study.runs.files import CHECKPOINT, PREVIOUS
from convnext_study.runs.records import Record, RecordError, scan

Folder = Annotated[Path, typer.Argument(help="Folder of one or more studies.")]
# Needed only to resume training.
ONLY_TO_RESUME = ("optimizer", "scaler")

app = typer.Typer(help="List runs, and remove what finished runs no longer need.")


def _records(folder: Path) -> list[Record]:
    unreadable: list[RecordError] = []
    records = list(scan(folder, unreadable)) if folder.is_dir() else []
    warn_of_unreadable(unreadable)
    if not records:
        raise UserError(f"{folder}: contains no runs; name the folder that a training wrote")
    return sorted(records, key=lambda record: record.folder)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.iterdir() if path.is_file())


def list_runs(folder: Folder = Path("runs"), as_json: Json = False) -> None:
    """List the runs of a folder: state, epochs, result, bytes on disk."""
    from convnext_study.report.tables import Column, Table
    from convnext_study.report.tables.formatting import size

    rows: list[dict[str, Any]] = [
        {
            "run": str(record.folder.relative_to(folder)),
            "study": record.run.study,
            "state": record.status,
            "epoch": record.epochs[-1].epoch if record.epochs else 0,
            "epochs": record.run.recipe.get("epochs"),
            "metric": record.result.primary if record.result else None,
            "value": record.result.value if record.result else None,
            "bytes": _size(record.folder),
        }
        for record in _records(folder)
    ]
    if as_json:
        print_json({"runs": rows})
        return
    columns: list[Column[dict[str, Any]]] = [
        Column("run", "run", lambda row: row["run"], "text"),
        Column("state", "state", lambda row: row["state"], "text"),
        Column("epoch", "epoch", lambda row: f"{row['epoch']}/{row['epochs'] or '?'}", "text"),
        Column("metric", "metric", lambda row: row["metric"], "text"),
        Column("value", "result", lambda row: row["value"]),
        Column("bytes", "disk", lambda row: row["bytes"], format=size),
    ]
    summary = f"{len(rows)} runs, {size(sum(row['bytes'] for row in rows))} on disk"
    print_tables(Table("runs", "", columns, rows).with_notes(summary))


def clean_runs(
    folder: Folder = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
) -> None:
    """Remove what finished runs no longer need: optimizer states and previous checkpoints.

    Weights, logs and results stay: runs can be reported, evaluated, exported and started from.
    """
    from convnext_study.report.tables.formatting import plural, size

    done = [record for record in _records(folder) if record.status == "done"]
    total = sum(_size(record.folder) for record in done)
    freed = 0
    for record in done:
        try:
            freed += _clean(record, dry_run)
        except (RunFailed, Busy, UserError) as error:
            print(f"convnext-study: warning: not cleaned: {error}", file=sys.stderr)
    verb = "would be freed" if dry_run else "freed"
    print(f"{size(freed)} of {size(total)} {verb} in {plural(len(done), 'finished run')}")


def _clean(record: Record, dry_run: bool) -> int:
    """The bytes freed. The previous checkpoint is removed only if the newest is readable."""
    from convnext_study.runs.folder import RunFolder
    from convnext_study.training import checkpoint_file

    newest, previous = (record.folder / name for name in (CHECKPOINT, PREVIOUS))
    if not newest.exists():
        return 0
    freed = previous.lstat().st_size if previous.exists() else 0
    if dry_run:
        state = checkpoint_file.read(newest)
        return freed + sum(_bytes(state[name]) for name in ONLY_TO_RESUME if name in state)
    with RunFolder(record.folder, record.run) as run_folder, run_folder.writing():
        state = checkpoint_file.read(newest)
        previous.unlink(missing_ok=True)  # first: on a full disk it makes the room for the rest
        remaining = {name: value for name, value in state.items() if name not in ONLY_TO_RESUME}
        if len(remaining) < len(state):
            size = newest.stat().st_size
            checkpoint_file.save(record.folder, remaining, run_folder.check_lock)
            freed += size - newest.stat().st_size
        previous.unlink(missing_ok=True)
    return freed


def _bytes(state: Any) -> int:
    """The size of all tensors in a state."""
    from torch import Tensor

    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, dict) else state
    return sum(map(_bytes, parts)) if isinstance(state, dict | list | tuple) else 0


for _name, _command in {"list": list_runs, "clean": clean_runs}.items():
    app.command(_name, epilog=f"Example:\n\nconvnext-study runs {_name} runs/nano-clutter")(
        _command
    )
