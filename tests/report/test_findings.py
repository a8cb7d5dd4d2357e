"""What a study found, as files and on the page: complete, up to date, and nobody else's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from support.fakes import fake_runs, write_study
from support.pages import on_screen, page_of

from convnext_study.report.figures.style import new_figure
from convnext_study.report.findings import FINDINGS, StudyFigure, read_findings, write_findings
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.render import Screen, to_csv, to_html, to_json, to_latex
from convnext_study.report.tables.table import SavedTable
from convnext_study.results.effects import Effect, Effects

pytestmark = pytest.mark.usefixtures("no_figures")


class Row(NamedTuple):
    name: str
    macs: int | None
    ends: tuple[float, float] | None


COLUMNS = [
    Column[Row]("name", "network", lambda row: row.name, "text", tone=lambda row: "strong"),
    Column[Row]("macs", "MACs", lambda row: row.macs, prefixed=True),
    Column[Row]("ci", "95 % interval", lambda row: row.ends, "interval"),
    Column[Row]("note", "note", lambda row: None, "text"),
    Column[Row]("id", "id", lambda row: row.name.upper(), "text", screen=False),
]
ROWS = [Row("<small>", 3_400_000, (0.1, 0.25)), Row("large", None, None)]
TABLE = Table("sizes", "Sizes & costs", COLUMNS, ROWS, ("A note.",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path, fake_runs())


def test_a_table_is_the_same_after_it_was_written(tmp_path: Path) -> None:
    again = SavedTable.model_validate(json.loads(json.dumps(TABLE.saved())))
    for to_text in (to_html, to_csv, to_json, to_latex):
        assert to_text(again) == to_text(TABLE)
    assert on_screen(Screen(again)) == on_screen(Screen(TABLE))


def test_the_page_shows_them_and_says_when_they_are_old(folder: Path) -> None:
    figure = StudyFigure("mine", "What it shows", new_figure(2, 1))
    paths = write_findings("my_study", [TABLE, "A sentence.", figure, 3], folder)
    assert [path.name for path in paths] == ["sizes.json", "sizes.csv", "mine.svg", "mine.png"]
    html = page_of(folder)
    for text in ("Findings of the study my_study", "&lt;small&gt;", "A sentence.", "A note."):
        assert text in html
    assert 'alt="What it shows"' in html and "data:image/svg+xml;base64," in html
    assert "again to update" not in html
    write_study(folder, fake_runs(seeds=(1,)))
    assert "again to update" in page_of(folder)


def test_what_the_page_makes_anew_is_not_taken_from_a_file(folder: Path) -> None:
    effects = Effects(
        kind="kinds",
        title="All",
        effect_label="gain",
        rows=(Effect(name="a", label="a", diff=1, macs=2),),
    )
    write_findings("study", [effects, TABLE], folder)
    (whole,), (rest,) = read_findings(folder), read_findings(folder, ["kinds"])
    assert [table.name for table in whole.tables] == ["kinds", "sizes"]
    assert [part.table and part.table.name for part in rest.parts] == ["sizes"]
    assert read_findings(folder, ["kinds", "sizes"]) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"parts": [{"table": {}}]}', '{"study": "x", "parts": [{"image": "gone.svg"}]}'],
)
def test_a_file_that_cannot_be_read_is_told_of(folder: Path, text: str) -> None:
    (folder / FINDINGS).mkdir()
    (folder / FINDINGS / "mine.json").write_text(text)
    assert "mine.json cannot be read" in page_of(folder)


def test_an_image_is_in_the_file_itself(folder: Path) -> None:
    write_findings("mine", [StudyFigure("drawn", "", new_figure(1, 1))], folder)
    path = folder / FINDINGS / "mine.json"
    path.write_text(path.read_text().replace("data:image/svg+xml;base64,", "file:///etc/"))
    assert "cannot be read" in page_of(folder)
