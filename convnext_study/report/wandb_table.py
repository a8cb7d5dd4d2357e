"""A study's table and figure as a run of their own in wandb."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_study.results.noise import noise_note
from convnext_study.results.title import StudyTitle, study_title
from convnext_study.runs.wandb_mirror import _digest, _numbers, _Writer

if TYPE_CHECKING:
    from convnext_study.results.rows import ResultRow


def mirror_study(
    folder: Path,
    rows: Sequence[ResultRow],
    mode: str,
    meta: StudyTitle | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """A run of its own with the result table, and ``roadmap.png`` of ``folder`` if there is one."""
    if mode == "off" or not any(row.value is not None for row in rows):
        return
    meta = meta or study_title(rows)
    study = rows[0].study
    writer = _Writer(mode, warn or (lambda text: print(text, file=sys.stderr)))
    writer.start(
        {
            "id": _digest(folder.resolve().name, study, meta.data),
            "name": f"{study} results",
            "group": study,
            "job_type": "results",
            "dir": str(folder),
            "config": {"title": meta.title, "data": meta.data, "note": noise_note(rows)},
        }
    )
    data = [[getattr(row, column) for column in _COLUMNS] for row in rows]
    writer.send(do="table", name="results", columns=list(_COLUMNS), data=data)
    figure = folder / "roadmap.png"
    if figure.exists():
        writer.send(do="image", name="roadmap", path=str(figure))
    for column in ("value", "macs"):
        values = {f"{column}/{row.name}": getattr(row, column) for row in rows}
        writer.send(do="summary", values=_numbers(values))
    writer.send(do="finish", code=0)
    writer.close()


_COLUMNS = ("name", "label", "adopted", "value", "std", "gain", "macs", "params", "images_per_s")
