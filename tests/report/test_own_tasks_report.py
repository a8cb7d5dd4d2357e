"""Two studies that only the tests know, trained, and told of by every room above the engine."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.toys import segmentation_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.launchers.graph import Job
from convnext_study.launchers.worker import train_job
from convnext_study.results.compare import compare
from convnext_study.results.summary import summarize
from convnext_study.runs.records import Run, scan
from convnext_study.training.runtime import Runtime

pytestmark = pytest.mark.usefixtures("no_figures")
SEEDS = (0, 1, 2)


def train_all(folder: Path, runs: list[Run]) -> None:
    for run in runs:
        job = Job(run, folder / "runs" / run.id, Runtime())
        assert train_job(job, lambda: False)[0] == "done"


def report_on(folder: Path) -> str:
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 0, done.output
    return (folder / "report" / "report.html").read_text()


def test_dense_prediction_in_rows_tests_files_and_on_the_page(tmp_path: Path) -> None:
    scenes = tmp_path
    train_all(scenes, [segmentation_run(seed, width) for seed in SEEDS for width in (4, 12)])
    found = {row.name: row for row in summarize(scan(scenes))}
    narrow, wide = found["width4"], found["width12"]
    assert (narrow.metric.label, narrow.metric.unit) == ("mIoU, exit 2", "%")
    assert narrow.value is not None and wide.value is not None and wide.gain is not None
    assert wide.gain == pytest.approx(wide.value - narrow.value)
    assert narrow.interval is not None
    assert narrow.interval[0] < narrow.value < narrow.interval[1]
    records = list(scan(scenes))
    rows = {
        name: [record for record in records if record.run.name == name]
        for name in ("width4", "width12")
    }
    test = compare(rows["width12"], rows["width4"])
    assert test.difference.diff == pytest.approx(wide.gain)
    alone = compare(rows["width12"][:1], rows["width4"][:1])  # by the images that both were asked
    assert alone.difference.p is None
    page = report_on(scenes)
    assert "mIoU, exit 2" in page and "top-1" not in page
    assert f"{wide.value:.2f}" in page
    # And the same in every file.
    (table,) = (scenes / "report" / "tables").glob("*results*.csv")
    for line in csv.DictReader(table.open()):
        assert float(line["value"]) == pytest.approx(found[line["name"]].value)
        assert line["metric"] == "miou_2"
        assert int(line["macs"]) == found[line["name"]].macs
        assert float(line["metric_miou_1"]) > 0 and float(line["cost_exit 1_macs"]) > 0
    (tex,) = (scenes / "report" / "tables").glob("*results*.tex")
    assert all(f"{row.value:.2f}" in tex.read_text() for row in found.values())
