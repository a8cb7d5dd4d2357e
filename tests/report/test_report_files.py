"""The report's figures and tables, the commands it names, and the watch."""

import csv
import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from support.fakes import fake_runs, write_run, write_study
from support.pages import data_in
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.cli.reproduce import commands
from convnext_study.experiments.context import Context
from convnext_study.experiments.roadmap_runs import parse_seeds, roadmap_runs
from convnext_study.experiments.study_file import with_metadata
from convnext_study.report.write import write_report
from convnext_study.results.grouping import group
from convnext_study.results.summary import summarize
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.records import Run, scan
from convnext_study.studies.pruning.plans import runs_of as pruning_runs

NANO = get_roadmap("nano")


def test_all_files_are_written(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_study(study, [run for run in fake_runs(seeds=(0, 1)) if run.metadata["order"] < 4])
    paths, _ = write_report(study, tmp_path / "out")
    names = {str(path.relative_to(tmp_path / "out")) for path in paths}
    figures = {
        f"figures/{n}.{k}" for n in ("roadmap", "cost", "curves") for k in ("svg", "pdf", "png")
    }
    names_of_tables = ("results", "differences", "differences_pooled", "recipe_1", "recipe_2")
    tables = {f"tables/{n}.{k}" for n in names_of_tables for k in ("csv", "json", "md", "tex")}
    assert names == {"report.html", *figures, *tables}
    heads = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    for name in figures:
        assert (tmp_path / "out" / name).read_bytes().startswith(heads[name[-3:]])
    with (tmp_path / "out/tables/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = summarize(scan(study))
    assert [float(row["value"]) for row in rows] == pytest.approx([row.value for row in expected])
    assert [int(row["macs"]) for row in rows] == [row.macs for row in expected]


# Commands


def real_runs(folder: Path, seeds: str = "2", **changes: Any) -> list[Run]:
    """Runs as the command line makes them, with fake records."""
    variants = [NANO.variant(name) for name in ("resnet", "gelu")]
    runs = roadmap_runs(NANO, variants, data="digits", seeds=parse_seeds(seeds), changes=changes)
    write_study(folder, runs)
    return runs


@pytest.mark.parametrize("seeds", ["1", "3", "0,4,7"])
def test_the_commands_ask_for_the_same_runs(tmp_path: Path, seeds: str) -> None:
    runs = real_runs(tmp_path, seeds, epochs=2, global_batch_size=128)
    lines = commands(group(scan(tmp_path)), "my study")
    assert lines[0] == "git checkout 0123456789abcdef"
    assert lines[1] == f"# requests the {len(runs)} runs counted above, checked by their keys"
    words = shlex.split(lines[2])
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given == {
        **{"--regime": "nano", "--data": "digits", "--steps": "resnet,gelu", "--seeds": seeds},
        **{"--epochs": "2", "--batch-size": "128", "--out": "my study"},
    }
    assert lines[3] == "convnext-study report 'my study'"


def test_commands_say_when_they_ask_for_other_runs(tmp_path: Path) -> None:
    real_runs(tmp_path, "1", clip_grad=0.5)
    lines = commands(group(scan(tmp_path)), "s")
    assert lines[1].startswith(
        "# 2 of the 2 runs differ from those that this command requests: recipe clip_grad"
    )


def test_commands_of_a_study_name_its_file(tmp_path: Path) -> None:
    context = Context(road=NANO, seeds=(0, 1), changes={"epochs": 3})
    runs = context.subsets([["gelu"], ["kernel_7"]], "leave_one_out")
    write_study(tmp_path, runs)
    lines = commands(group(scan(tmp_path)), "s")
    assert lines[1] == (
        "convnext-study study leave_one_out --regime nano --data digits --seeds 2 "
        "--epochs 3 --out s"
    )
    assert lines[2].startswith("# not checked")


def test_commands_of_a_study_of_other_networks(tmp_path: Path) -> None:
    asked = Context(road=NANO, seeds=(0, 1), networks=("vgg16_eighth",), targets=("half",))
    choice = {"networks": "vgg16_eighth", "targets": ["half", "guided@folder:/home/me/mine"]}
    write_study(tmp_path, [with_metadata(run, **choice) for run in pruning_runs(asked)])
    lines = commands(group(scan(tmp_path)), "s")
    assert shlex.split(lines[1]) == [
        *("convnext-study", "study", "pruning", "--data", "digits", "--seeds", "2"),
        *("--networks", "vgg16_eighth", "--target", "guided@folder:PATH/mine"),
        *("--target", "half", "--out", "s"),
    ]
    assert lines[2].startswith("# not checked")
    assert lines[3] == "convnext-study report s"


def test_no_text_of_a_record_becomes_a_command(tmp_path: Path) -> None:
    variants = [NANO.variant("gelu")]
    (run,) = roadmap_runs(NANO, variants, data="digits; rm -rf /\nrm -rf /", seeds=[0])
    write_run(tmp_path, run.model_copy(update={"recipe": {**run.recipe, "crop": "x\nrm -rf /"}}))
    lines = commands(group(scan(tmp_path)), "s\nrm -rf /")
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[:1] in ([], ["git"], ["convnext-study"]) and ";" not in words, line


@pytest.mark.usefixtures("no_figures")
def test_deviations_from_the_published_recipe_are_listed(tmp_path: Path) -> None:
    real_runs(tmp_path)
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    with (tmp_path / "r/tables/recipe_1.csv").open() as file:
        found = {
            row["setting" if "setting" in row else "field"]: row for row in csv.DictReader(file)
        }
    assert (found["epochs"]["here"], found["epochs"]["published"]) == ("10", "300")
    assert (found["mixup"]["here"], found["mixup"]["published"]) == ("0", "0.8")
    assert "optimizer" not in found  # the same in both
    html = (tmp_path / "r/report.html").read_text()
    assert "- before: kernel_7" in html and "dwconv 7x7" in html  # the screen of `show`


# Watch


@pytest.mark.usefixtures("no_figures")
def test_watch_writes_the_page_again_while_a_study_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = fake_runs()[:2]
    write_run(tmp_path, runs[0])
    pages: list[str] = []
    page = tmp_path / "report" / "report.html"

    def sleep(_: float) -> None:
        pages.append(page.read_text())
        if len(pages) == 2:  # nothing has changed since: the page was not written again
            write_run(tmp_path, runs[1])
        if len(pages) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    words = ["report", str(tmp_path), "--watch", "--every", "7", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("press Ctrl-C to end") == 2
    assert str(page) in json.loads(result.stdout)["files"]
    assert all('<meta http-equiv="refresh" content="7">' in one for one in pages)
    assert [len(data_in(one)[0]["rows"]) for one in pages] == [1, 1, 2]
    assert 'http-equiv="refresh"' not in page.read_text()
    assert (tmp_path / "report/tables/results.csv").exists()
