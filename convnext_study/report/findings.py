"""What a study has to say of its runs beside their results: its own tables, figures and sentences.

They are written into the study's folder when the study has run, and stand on the folder's page.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_study.report.attribution import effects_table, write_effects
from convnext_study.report.figures.style import save
from convnext_study.report.tables.render import Screen, write_tables
from convnext_study.report.tables.saved import from_plain, to_plain
from convnext_study.report.tables.table import Table
from convnext_study.results.effects import Effects
from convnext_study.runs.files import write_json
from convnext_study.runs.records import RESULT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINDINGS = "findings"  # in a study's folder: a file for each study that has run there


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
            parts.append({"image": f"{one.kind}.svg", "title": one.title})
        elif table is not None:
            paths += write_tables([table], folder, ("json", "csv"))
        elif isinstance(one, StudyFigure):
            paths += save(one.figure, folder, one.name, ("svg", "png"))
            parts.append({"image": f"{one.name}.svg", "title": one.title})
        elif isinstance(one, str):
            parts.append({"text": one})
    if parts:
        home = folder / FINDINGS
        home.mkdir(parents=True, exist_ok=True)
        about = {"study": study, "finished": _finished(folder), "parts": parts}
        write_json(home / f"{study}.json", about)
    return paths


def read_findings(folder: Path, known: Sequence[str] = ()) -> list[Findings]:
    """What the studies under a folder found, without the tables of these names and their images."""
    paths = sorted(folder.rglob(f"{FINDINGS}/*.json"))
    found = [_read(path, set(known)) for path in paths]
    return [one for one in found if one.parts or one.notes]


def _read(path: Path, known: set[str]) -> Findings:
    home = path.parent.parent
    try:
        about = json.loads(path.read_text())
        parts = [_part(part, home) for part in about["parts"] if _name(part) not in known]
        then, now = int(about["finished"]), _finished(home)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Findings(path.stem, [], (f"{path.name} cannot be read: {reason}",))
    notes = (
        f"Written when {then} runs of the folder were finished; now {now} are. The same study "
        "command brings this up to date."
    )
    return Findings(str(about["study"]), parts, (notes,) if parts and then != now else ())


def _name(part: dict[str, Any]) -> str:
    return str(part["table"]["name"]) if "table" in part else Path(part.get("image", "")).stem


def _part(part: dict[str, Any], home: Path) -> Part:
    if "table" in part:
        return Part(table=from_plain(part["table"]))
    if "image" in part:
        data = (home / Path(part["image"]).name).read_bytes()  # in this folder, whatever it says
        encoded = base64.b64encode(data).decode()
        return Part(image=f"data:image/svg+xml;base64,{encoded}", title=str(part["title"]))
    return Part(text=str(part["text"]))


def _finished(folder: Path) -> int:
    return len(list(folder.glob(f"runs/*/{RESULT}")))
