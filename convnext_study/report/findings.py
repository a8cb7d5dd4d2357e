"""What a study reports besides the results of its runs: its own tables, figures and sentences.

They are written into the study's folder after its runs and are shown on the folder's page.
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

FINDINGS = "findings"  # in a study's folder: a file per study that has run there
_IMAGE = "data:image/svg+xml;base64,"


@dataclass(frozen=True)
class StudyFigure:
    """A study's own figure; ``name`` is that of its files, ``title`` says what it shows."""

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
    """A study's findings; ``notes`` say where they may be out of date or cannot be read.

    ``finished`` counts the runs of the folder that were finished when they were written.
    """

    study: Text
    finished: Count = 0
    parts: list[Part] = []
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> list[SavedTable]:
        """The tables among the parts."""
        return [part.table for part in self.parts if part.table is not None]


def table_of(finding: Any) -> Any:
    """The table of a finding; None where it is something else."""
    if isinstance(finding, Effects):
        return effects_table(finding)
    finding = finding.table if isinstance(finding, Screen) else finding
    return finding if isinstance(finding, Table) else None


def write_findings(study: str, results: Iterable[Any], folder: Path) -> list[Path]:
    """Write tables as JSON and CSV, figures as SVG and PNG, and what the page needs of them.

    Args:
        study: its name.
        results: of its ``report``; anything that is no `Finding` is left out.
        folder: of its runs.

    Returns:
        The paths of tables and figures.
    """
    paths: list[Path] = []
    parts: list[dict[str, Any]] = []
    for result in results:
        image_paths: list[Path] = []
        if (table := table_of(result)) is not None:
            parts.append({"name": table.name, "table": table.saved()})
            paths += write_tables([table], folder, ("json", "csv"))
        if isinstance(result, Effects):
            image_paths = draw_effects(result, folder)
        elif isinstance(result, StudyFigure):
            image_paths = save(result.figure, folder, result.name, ("svg", "png"))
        elif isinstance(result, str):
            parts.append({"text": result})
        if image_paths:
            name = result.kind if isinstance(result, Effects) else result.name
            image = _IMAGE + base64.b64encode(image_paths[0].read_bytes()).decode()
            parts.append({"name": name, "image": image, "title": result.title})
        paths += image_paths
    if parts:
        values = {"study": study, "finished": _finished(folder), "parts": parts}
        write_json(make_within(folder, FINDINGS) / f"{safe_name(study)}.json", values)
    return paths


def read_findings(folder: Path, excluded: Sequence[str] = ()) -> list[Findings]:
    """The findings of the studies under a folder, without the tables and images named in
    ``excluded``."""
    paths = sorted(folder.rglob(f"{FINDINGS}/*.json"))
    findings = [_read(path, excluded) for path in paths if not path.parent.is_symlink()]
    return [each for each in findings if each.parts or each.notes]


def _read(path: Path, excluded: Sequence[str]) -> Findings:
    try:
        findings = Findings.model_validate(read_json(path))
    except (OSError, ValueError) as error:  # pydantic's is a ValueError
        return Findings(study=path.stem, notes=(f"{path.name} cannot be read: {reason_of(error)}",))
    parts = [part for part in findings.parts if not part.name or part.name not in excluded]
    then, now = findings.finished, _finished(path.parent.parent)
    notes = (
        f"Written when {then} runs of the folder were finished; now {now} are. Run the same study "
        "command again to update."
    )
    outdated = (notes,) if parts and then != now else ()
    return findings.model_copy(update={"parts": parts, "notes": outdated})


def _finished(folder: Path) -> int:
    return len(list(folder.glob(f"runs/*/{RESULT}")))
