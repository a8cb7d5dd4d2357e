"""The study that asks how far a small road agrees with the paper."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.fakes import write_run

from convnext_study.experiments.context import Context
from convnext_study.experiments.study_file import StudyFile, find_study, load_study, make_context
from convnext_study.report.tables.render import to_json, to_markdown
from convnext_study.results.summary import summarize
from convnext_study.roadmap import StepError, get_roadmap
from convnext_study.roadmap.paper import PAPER
from convnext_study.runs.records import scan

PRINTED = {
    mine.name: PAPER["t"][its.name].top1
    for mine, its in zip(get_roadmap("nano").variants(), get_roadmap("t").variants(), strict=True)
}


@pytest.fixture
def study() -> StudyFile:
    return load_study(find_study("agreement"))


def tables(study: StudyFile, folder: Path, context: Context) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table by its name."""
    found = study.report(list(scan(folder)), context)
    assert all(to_markdown(table) for table in found)
    return {table.name: json.loads(to_json(table))["rows"] for table in found}


def test_each_road_is_compared_with_the_paper_on_its_own(study: StudyFile, tmp_path: Path) -> None:
    context = make_context(study, None, seeds=(0, 1))
    for run in study.runs(context):
        printed = PRINTED[run.metadata["step"]]
        way = -1 if run.name.endswith("-hard") else 1
        top1 = 50 + way * (printed - 80) + 0.001 * run.seed
        write_run(tmp_path, run, top1=top1, result={"val_images": 100_000})
    found = tables(study, tmp_path, context)
    roads = ["easy", "medium", "hard", "medium, widths halved"]
    assert [(line["road"], line["seeds"]) for line in found["roads"]] == [(one, 2) for one in roads]
    first = 50 - (PRINTED["resnet-90ep"] - 80)
    assert found["roads"][2]["first"] == pytest.approx(first, abs=0.01)
    by_road = {(line["road"], line["what"]): line["value"] for line in found["agreement"]}
    assert len(by_road) == 20
    for road in roads:
        way = -1 if road == "hard" else 1
        for what in ("rows by accuracy, Kendall", "steps by gain, Pearson"):
            assert by_road[road, what] == pytest.approx(way, abs=0.01)


def test_roads_that_are_not_trained_have_no_line(study: StudyFile, tmp_path: Path) -> None:
    context = make_context(study, None)
    assert not tables(study, tmp_path, context)
    for run in study.runs(context):
        if run.name.endswith("-easy"):
            write_run(tmp_path, run, top1=PRINTED[run.metadata["step"]])
    found = tables(study, tmp_path, context)
    assert {line["road"] for line in found["agreement"]} == {"easy"}
    assert [(line["road"], line["largest_std"]) for line in found["roads"]] == [("easy", None)]


def test_rows_of_all_roads_are_told_apart(study: StudyFile, tmp_path: Path) -> None:
    context = make_context(study, None)
    for run in study.runs(context):
        write_run(tmp_path, run)
    rows = {row.name: row for row in summarize(scan(tmp_path))}
    assert len(rows) == 68
    assert not any(row.excluded for row in rows.values())
    assert rows["gelu-hard"].parent == "kernel_7-hard"
    assert rows["gelu-narrow"].label == "ReLU → GELU (medium, widths halved)"
    assert rows["resnet-90ep-easy"].parent is None


def test_other_data_has_two_widths(study: StudyFile) -> None:
    runs = study.runs(make_context(study, None, data="digits"))
    assert {run.data for run in runs} == {"digits"}
    widths = {run.name: run.model.args["width"] for run in runs}
    assert len(widths) == 34
    assert (widths["resnet"], widths["resnet-narrow"]) == (8, 4)
    assert (widths["gelu"], widths["gelu-narrow"]) == (12, 6)


def test_a_road_of_other_widths_has_the_same_steps() -> None:
    road = get_roadmap("b").scaled(0.25)
    assert [row.name for row in road.variants()] == [
        row.name for row in get_roadmap("b").variants()
    ]
    assert (road.base.width, road.variants()[2].spec.width, road.variants()[-1].spec.width) == (
        16,
        21,
        32,
    )
    assert get_roadmap("t").scaled(1.0) == get_roadmap("t")
    with pytest.raises(StepError, match=r"^factor 0\.01: leaves no channels of 8"):
        get_roadmap("nano").scaled(0.01)
