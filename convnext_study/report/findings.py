"""What a study has to say of its runs beside their results: its own tables, figures and sentences.

They are written into the study's folder when the study has run, and stand on the folder's page.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from convnext_study.errors import reason_of
from convnext_study.report.attribution import draw_effects, effects_table
from convnext_study.report.figures.style import save
from convnext_study.report.tables.render import Screen, write_tables
from convnext_study.report.tables.table import SavedTable, Table
from convnext_study.results.effects import Effects
from convnext_study.runs.files import RESULT, make_within, read_json, safe_name, write_json
from convnext_study.runs.metrics import Count, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINDINGS = "findings"  # in a study's folder: a file for each study that has run there
_IMAGE = "data:image/svg+xml;base64,"


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study's own; ``name`` is its files', ``title`` says what it shows."""

    name: str
    title: str
    figure: Figure


# What a study's ``report`` may return, alone or in a list.
Finding = Effects | Table[Any] | Screen | StudyFigure | str


class Part(BaseModel):
    """A piece of a study's findings: a text, a table, or an image as a data URI with its title."""

    name: Text = ""  # of the table, or of the image
    text: str = ""
    table: SavedTable | None = None
    image: Annotated[str, Field(pattern=r"^data:image/svg\+xml;base64,[\w+/=]+$")] | None = None
    title: Text = ""


class Findings(BaseModel):
    """What a study found; ``notes`` say where that may be out of date or cannot be read.

    ``finished`` counts the runs of the folder that were finished then.
    """

    study: Text
    finished: Count = 0
    parts: list[Part] = []
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> list[SavedTable]:
        """The tables among the parts."""
        return [part.table for part in self.parts if part.table is not None]


def table_of(found: Any) -> Any:
    """The table that a finding is; None where it is something else."""
    if isinstance(found, Effects):
        return effects_table(found)
    found = found.table if isinstance(found, Screen) else found
    return found if isinstance(found, Table) else None


def write_findings(study: str, found: Iterable[Any], folder: Path) -> list[Path]:
    """Write tables as JSON and CSV, figures as SVG and PNG, and what the page needs of them.

    Args:
        study: its name.
        found: what its ``report`` returned; what is no `Finding` is left out.
        folder: of its runs.

    Returns:
        The paths of tables and figures.
    """
    paths: list[Path] = []
    parts: list[dict[str, Any]] = []
    for one in found:
        drawn: list[Path] = []
        if (table := table_of(one)) is not None:
            parts.append({"name": table.name, "table": table.saved()})
            paths += write_tables([table], folder, ("json", "csv"))
        if isinstance(one, Effects):
            drawn = draw_effects(one, folder)
        elif isinstance(one, StudyFigure):
            drawn = save(one.figure, folder, one.name, ("svg", "png"))
        elif isinstance(one, str):
            parts.append({"text": one})
        if drawn:
            name = one.kind if isinstance(one, Effects) else one.name
            image = _IMAGE + base64.b64encode(drawn[0].read_bytes()).decode()
            parts.append({"name": name, "image": image, "title": one.title})
        paths += drawn
    if parts:
        about = {"study": study, "finished": _finished(folder), "parts": parts}
        write_json(make_within(folder, FINDINGS) / f"{safe_name(study)}.json", about)
    return paths


def read_findings(folder: Path, known: Sequence[str] = ()) -> list[Findings]:
    """What the studies under a folder found, without the tables of these names and their images."""
    paths = sorted(folder.rglob(f"{FINDINGS}/*.json"))
    found = [_read(path, known) for path in paths if not path.parent.is_symlink()]
    return [one for one in found if one.parts or one.notes]


def _read(path: Path, known: Sequence[str]) -> Findings:
    try:
        found = Findings.model_validate(read_json(path))
    except (OSError, ValueError) as error:  # pydantic's is a ValueError
        return Findings(study=path.stem, notes=(f"{path.name} cannot be read: {reason_of(error)}",))
    parts = [part for part in found.parts if not part.name or part.name not in known]
    then, now = found.finished, _finished(path.parent.parent)
    notes = (
        f"Written when {then} runs of the folder were finished; now {now} are. The same study "
        "command brings this up to date."
    )
    old = (notes,) if parts and then != now else ()
    return found.model_copy(update={"parts": parts, "notes": old})


def _finished(folder: Path) -> int:
    return len(list(folder.glob(f"runs/*/{RESULT}")))
