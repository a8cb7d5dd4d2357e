"""A study's table and figure as a run of their own in wandb."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_study.report.tables.results import results_table
from convnext_study.results.noise import noise_note
from convnext_study.results.title import study_title
from convnext_study.runs.wandb import digest, mirror

if TYPE_CHECKING:
    from convnext_study.results.rows import ResultRow


def mirror_study(
    folder: Path,
    rows: Sequence[ResultRow],
    mode: str,
    warn: Callable[[str], None] | None = None,
) -> None:
    """A run of its own with the result table, and ``roadmap.png`` of ``folder`` if there is one."""
    if mode == "off" or all(row.state != "done" for row in rows):
        return
    title, study, figure = study_title(rows), rows[0].study, folder / "roadmap.png"
    records = results_table(rows).records(csv=True)
    # What also stands by itself: each row's metric under its name, and its MACs.
    summary = {f"{row['metric']}/{row['name']}": row["value"] for row in records}
    summary |= {f"macs/{row['name']}": row["macs"] for row in records}
    task = {
        "init": {
            "id": digest(folder.resolve().name, study, title.data),
            "name": f"{study} results",
            "group": study,
            "job_type": "results",
            "dir": str(folder),
            "config": {"title": title.title, "data": title.data, "note": noise_note(rows)},
        },
        "table": {
            "results": {"columns": [*records[0]], "data": [[*row.values()] for row in records]}
        },
        "image": {"roadmap": str(figure.absolute())} if figure.exists() else {},
        "summary": {name: value for name, value in summary.items() if value is not None},
    }
    with mirror(task, mode, warn or (lambda text: print(text, file=sys.stderr))):
        pass
