"""A report of a folder from a stranger: nothing outside ``--out`` is written or read, no text is
more than a text, and one bad record is named while the rest is shown."""

from __future__ import annotations

import base64
import csv
import json
import os
import random
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_runs, write_study
from support.hostile import TEXTS, VALUES, add_event, change, files_under, places_in
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.cli.reproduce import commands
from convnext_study.report.figures.style import new_figure
from convnext_study.report.findings import FINDINGS, StudyFigure, read_findings, write_findings
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.render import to_csv, to_latex, to_markdown
from convnext_study.report.write import write_report
from convnext_study.results.load import load_results
from convnext_study.runs.files import LOG, RESULT, RUN, read_json, safe_name
from convnext_study.runs.log import read_lines
from convnext_study.runs.records import read, unreadable_in

TABLE = Table("sizes", "Sizes", [Column("name", "network", str, "text")], ["a", "b"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two finished rows, and what a study found."""
    rows = [run for run in fake_runs() if run.name in ("gelu", "layer_norm")]
    study = write_study(tmp_path / "study", rows)
    write_findings("mine", [TABLE, "Words.", StudyFigure("drawn", "", new_figure(1, 1))], study)
    return study


def first_run(folder: Path) -> Path:
    return min((folder / "runs").iterdir())


def report(folder: Path, out: Path) -> list[Path]:
    return write_report(folder, out)[0]


@pytest.mark.usefixtures("no_figures")
def test_no_name_leads_out_of_the_folder_of_the_report(folder: Path, tmp_path: Path) -> None:
    victims = [tmp_path / name for name in ("evil.json", "evil.csv", "evil.tex", "evil.md")]
    for path in victims:
        path.write_text("mine")
    target = str(tmp_path / "evil")
    found = folder / FINDINGS / "mine.json"
    change(found, ("parts", 0, "table", "name"), target)
    change(found, ("study",), "../../evil")
    change(first_run(folder) / RUN, ("run", "study"), "../../evil")
    change(first_run(folder) / RUN, ("run", "metadata", "step"), "../../evil")
    before, out = files_under(folder), tmp_path / "a" / "b" / "out"
    written = report(folder, out)
    assert all(path.resolve().is_relative_to(out.resolve()) for path in written)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {
        *victims,
        *before,
        *files_under(out),
    }
    assert all(path.read_text() == "mine" for path in victims) and files_under(folder) == before


@pytest.mark.parametrize("text", [*TEXTS, "", ".", "..", "é" * 300, "a/b", "a_b", "CON"])
def test_a_text_becomes_one_name(text: str) -> None:
    name = safe_name(text)
    assert Path(name).name == name and len(name.encode()) < 120 and name.isprintable()
    assert (name == text) == (text in ("a_b", "CON"))


@pytest.mark.usefixtures("no_figures")
def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = (folder / FINDINGS / "mine.json").rename(tmp_path / "secret")
    (folder / FINDINGS / "mine.json").symlink_to(secret)
    (found,) = read_findings(folder)
    assert found.parts == [] and "mine.json cannot be read: a link" in found.notes[0]

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "report").symlink_to(elsewhere)
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code != 0
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2" / "tables").symlink_to(elsewhere)
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "out2")])
    assert "is a link" in str(done.exception) and list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", [RUN, RESULT, LOG])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "sparse"])
def test_what_is_no_regular_file_is_no_record(folder: Path, name: str, kind: str) -> None:
    path = first_run(folder) / name
    other = path.rename(path.with_name("moved"))
    match kind:
        case "link":
            path.symlink_to(other)
        case "pipe":
            os.mkfifo(path)  # which would be waited for
        case "folder":
            path.mkdir()
        case "sparse":
            path.touch()
            os.truncate(path, 2**40)
    (bad,) = unreadable_in(folder)
    assert bad.folder == path.parent and name in bad.reason
    assert len(load_results(folder).studies[0].rows) == 1


SAMPLES = "metrics", "top1", "samples"
BOMB = base64.b64encode(zlib.compress(bytes(2**26), 9)).decode()


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        (RESULT, (*SAMPLES, "count"), 10**11),
        (RESULT, (*SAMPLES, "count"), 5),
        (RESULT, (*SAMPLES, "data"), "zz" * 75),
        (RESULT, SAMPLES, {"kind": "values", "count": 4, "data": "eJxjYGBoAAAAhACB"}),
        (RESULT, SAMPLES, {"kind": "values", "count": 100, "data": BOMB}),
        (RESULT, SAMPLES, {"kind": "values", "count": 2**24, "data": BOMB}),
        (RESULT, SAMPLES, {"kind": "ratio", "count": 10**6, "classes": 10**4, "data": ""}),
        (RESULT, ("metrics", "top1", "value"), float("nan")),
        (RESULT, ("corrupt_images",), "many"),
        (RESULT, ("seconds",), 1e300),
        (RUN, ("hardware",), 3),
        (RUN, ("hardware",), {"gpu": {"a": []}}),
        (RUN, ("versions",), ["torch"]),
        (RUN, ("commit",), {"a": 1}),
        (RUN, ("run", "metadata", "order"), "first"),
        (RUN, ("run", "metadata", "regime"), ["nano"]),
        (RUN, ("run", "metadata", "parent"), {}),
        (RUN, ("run", "metadata", "deep"), json.loads("[" * 100 + "]" * 100)),
        (RUN, ("run", "recipe", "epochs"), "ten"),
        (RUN, ("run", "recipe", "lr"), 10**400),
        (RUN, ("run", "name"), "../../evil"),
        (RUN, ("data",), {"train": 3}),
    ],
)
def test_one_bad_record_is_named_and_the_rest_is_shown(
    folder: Path, name: str, place: tuple[Any, ...], value: Any
) -> None:
    run = first_run(folder)
    change(run / name, place, value)
    found = load_results(folder)
    assert [one.run for one in found.unreadable] == [run.name]
    assert name in found.unreadable[0].reason or "key" in found.unreadable[0].reason
    assert len(found.studies[0].rows) == 1


@pytest.mark.parametrize(
    "fields",
    [{"rank": [0]}, {"hardware": ["none"]}, {"versions": {"torch": []}}, {"world_size": "two"}],
)
def test_a_bad_event_is_named_too(folder: Path, fields: dict[str, Any]) -> None:
    add_event(first_run(folder), **fields)
    (bad,) = unreadable_in(folder)
    assert LOG in bad.reason


def test_a_sign_that_ends_lines_elsewhere_hides_no_failure(folder: Path) -> None:
    run = first_run(folder)
    (run / RESULT).unlink()
    add_event(run, event="failed", reason="cannot read \u2028 a\x85b.jpg")
    assert read(run).status == "failed"
    assert all("\u2028" not in json.dumps(line) for line in read_lines(run / LOG))


@pytest.mark.usefixtures("no_figures")
def test_whatever_stands_in_a_record_there_is_a_report(folder: Path, tmp_path: Path) -> None:
    """A few of all places and values, others in every version of this list."""
    run = first_run(folder)
    add_event(run, event="started", versions={"torch": "2"}, hardware={"gpu": "x"}, commit="abc")
    files = [run / RUN, run / RESULT, folder / FINDINGS / "mine.json"]
    cases = [
        (path, place, value)
        for path in files
        for place in places_in(read_json(path))
        for value in (*VALUES, *TEXTS)
    ]
    for path, place, value in random.Random(0).sample(cases, 16):
        before = path.read_bytes()
        change(path, place, value)
        written = report(folder, tmp_path / "out")
        assert "<script>alert" not in written[0].read_text(), (path.name, place, value)
        path.write_bytes(before)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_only_a_text_in_files(text: str) -> None:
    table = Table("t", text, [Column(text, text, str, "text")], [text], (text,))
    cells = [cell for row in csv.reader(to_csv(table).splitlines()) for cell in row]
    for cell in cells:
        assert not cell.startswith(("=", "+", "-", "@"))
    assert re.search(r"(?<!\\)<", to_markdown(table)) is None
    latex = to_latex(table)
    assert r"\input" not in latex and "\n\n" not in latex and r"\frac" not in latex


@pytest.mark.parametrize("commit", ["--upload-pack=x", "main", "abc1234; rm -rf x", "ABCDEF0", "é"])
def test_only_a_digest_is_checked_out(folder: Path, commit: str) -> None:
    for run in (folder / "runs").iterdir():
        change(run / RUN, ("commit",), commit)
    lines = commands(list(load_results(folder).studies[0].groups.values()), "study")
    assert lines[0].startswith("# ") and not any(line.startswith("git") for line in lines)
    for run in (folder / "runs").iterdir():
        change(run / RUN, ("commit",), "0123456789+")
    lines = commands(list(load_results(folder).studies[0].groups.values()), "study")
    assert lines[0].startswith("git checkout 0123456789 ")
