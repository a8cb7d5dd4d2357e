"""``report``: a folder of runs as a web page, with its figures and tables for a paper."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import Json, print_json, warn_of_unreadable
from convnext_study.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from convnext_study.results.load import StudyFolder


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of one study or of several.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes. (default: FOLDER/report)")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again while the study runs.")
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, max=86_400, help="Seconds between looks, with --watch.")
    ] = 5,
    any_commit: Annotated[
        bool, typer.Option("--any-commit", help="Average runs of different commits.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a study's report: one HTML page that opens from disk, figures, and tables.

    The page loads nothing from elsewhere. Beside it stand figures as SVG, PDF and PNG, and tables
    as CSV, Markdown and LaTeX. With --watch it goes on until Ctrl-C.
    """
    from convnext_study.cli.reproduce import commands
    from convnext_study.report.tables.results import results_table
    from convnext_study.report.write import write_page, write_report
    from convnext_study.results.load import load_results
    from convnext_study.runs.records import unreadable_in

    if out is None:
        out = folder / "report"
        if out.is_symlink():  # made by whoever made the folder
            raise UserError(f"{out}: is a link; name the folder for the report with --out")
    again = functools.partial(commands, folder=folder.resolve().name)
    if watch:
        _watch(
            folder,
            lambda: write_page(folder, out, again, refresh=every, any_commit=any_commit),
            every,
        )
    paths = write_report(folder, out, again, any_commit=any_commit)
    warn_of_unreadable(unreadable_in(folder))
    if as_json:
        studies = load_results(folder, any_commit=any_commit).studies
        rows = {one.name: results_table(one.rows).records() for one in studies}
        print_json({"files": [str(path) for path in paths], "studies": rows})
        return
    size = paths[0].stat().st_size
    typer.echo(
        f"written: {paths[0]} ({size / 1e3:,.0f} kB) and {len(paths) - 1} figures and tables"
    )


def _watch(folder: Path, write: Callable[[], tuple[Path, StudyFolder]], every: int) -> None:
    """Write the page again whenever a record has changed, until Ctrl-C."""
    seen = None
    try:
        while True:
            if (now := _state(folder)) != seen:
                path, found = write()
                done = sum(len(row.seeds) for study in found.studies for row in study.rows)
                stamp = time.strftime("%H:%M:%S")
                typer.echo(f"{stamp}  {path}: {done} finished runs; Ctrl-C ends the watch")
                seen = now
            time.sleep(every)
    except KeyboardInterrupt:
        typer.echo("watch ended: the page as it stands, and figures and tables")


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every record's files."""
    found = {}
    for pattern in ("run.json", "log.jsonl", "result.json", "lock"):
        for path in folder.rglob(pattern):
            with contextlib.suppress(OSError):  # gone meanwhile
                about = path.lstat()
                found[path] = (about.st_size, about.st_mtime_ns)
    return found
