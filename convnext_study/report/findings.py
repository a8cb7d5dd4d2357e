"""What a study has to say of its runs beside their results: its own tables, figures and sentences.

They are written into the study's folder when the study has run, and stand on the folder's page.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from convnext_study.errors import one_line
from convnext_study.report.attribution import effects_table, write_effects
from convnext_study.report.figures.style import save
from convnext_study.report.tables.render import Screen, write_tables
from convnext_study.report.tables.serialize import SavedTable, to_plain
from convnext_study.report.tables.table import Table
from convnext_study.results.effects import Effects
from convnext_study.runs.files import (
    RESULT,
    make_within,
    read_bytes,
    read_json,
    safe_name,
    write_json,
)
from convnext_study.runs.metrics import Count, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINDINGS = "findings"  # in a study's folder: a file for each study that has run there
_LARGEST_IMAGE = 2**25  # bytes


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study's own; ``name`` is its files', ``title`` says what it shows."""

    name: str
    title: str
    figure: Figure


# What a study's ``report`` may return, alone or in a list.
Finding = Effects | Table[Any] | Screen | StudyFigure | str


@dataclass(frozen=True)
class Part:
    """A piece of a study's findings, as the page shows it: one of these is not empty."""

    text: str = ""
    table: Table[int] | None = None
    image: str = ""  # as a data URI
    title: str = ""  # of the image


@dataclass(frozen=True)
class Findings:
    """What a study found; ``notes`` say where that may be out of date or cannot be read."""

    study: str
    parts: list[Part]
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> list[Table[int]]:
        """The tables among the parts."""
        return [part.table for part in self.parts if part.table is not None]


def table_of(found: Any) -> Table[Any] | None:
    """The table that a finding is; None where it is something else."""
    if isinstance(found, Effects):
        return effects_table(found)
    if isinstance(found, Screen):
        return found.table
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
        table = table_of(one)
        if table is not None:
            parts.append({"table": to_plain(table)})
        if isinstance(one, Effects):
            paths += write_effects(one, folder)
            parts.append({"image": f"{safe_name(one.kind)}.svg", "title": one.title})
        elif table is not None:
            paths += write_tables([table], folder, ("json", "csv"))
        elif isinstance(one, StudyFigure):
            paths += save(one.figure, folder, one.name, ("svg", "png"))
            parts.append({"image": f"{safe_name(one.name)}.svg", "title": one.title})
        elif isinstance(one, str):
            parts.append({"text": one})
    if parts:
        about = {"study": study, "finished": _finished(folder), "parts": parts}
        write_json(make_within(folder, FINDINGS) / f"{safe_name(study)}.json", about)
    return paths


def read_findings(folder: Path, known: Sequence[str] = ()) -> list[Findings]:
    """What the studies under a folder found, without the tables of these names and their images."""
    paths = sorted(folder.rglob(f"{FINDINGS}/*.json"))
    found = [_read(path, set(known)) for path in paths if not path.parent.is_symlink()]
    return [one for one in found if one.parts or one.notes]


def _read(path: Path, known: set[str]) -> Findings:
    home = path.parent.parent
    try:
        about = _Saved.model_validate(read_json(path))
        parts = [one.part(home) for one in about.parts if one.name not in known]
    except (OSError, ValueError) as error:  # pydantic's is a ValueError
        reason = getattr(error, "strerror", None) or one_line(str(error))
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join([*map(str, first["loc"]), first["msg"]])[:500]
        return Findings(path.stem, [], (f"{path.name} cannot be read: {reason}",))
    then, now = about.finished, _finished(home)
    notes = (
        f"Written when {then} runs of the folder were finished; now {now} are. The same study "
        "command brings this up to date."
    )
    return Findings(about.study, parts, (notes,) if parts and then != now else ())


class _SavedPart(BaseModel):
    """One piece in a file; of its first three fields one is not empty."""

    text: str = ""
    table: SavedTable | None = None
    image: Annotated[str, Field(pattern=r"^[^/]+\.svg$")] | None = None  # beside the findings
    title: Text = ""  # of the image

    @property
    def name(self) -> str:
        """The table's, or the image's, which may be the same."""
        return self.table.name if self.table else (self.image or "").removesuffix(".svg")

    def part(self, home: Path) -> Part:
        """As the page shows it. Raises OSError where the image is no file of that folder."""
        if self.table is not None:
            return Part(table=self.table.table())
        if self.image is not None:
            encoded = base64.b64encode(read_bytes(home / self.image, _LARGEST_IMAGE)).decode()
            return Part(image=f"data:image/svg+xml;base64,{encoded}", title=self.title)
        return Part(text=self.text)


class _Saved(BaseModel):
    """A file of findings."""

    study: Text
    finished: Count
    parts: list[_SavedPart]


def _finished(folder: Path) -> int:
    return len(list(folder.glob(f"runs/*/{RESULT}")))
