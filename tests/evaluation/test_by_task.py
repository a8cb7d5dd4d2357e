"""`eval` of a run that is no classifier: its own metrics, the same as its result's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.exits import exit_run
from typer.testing import CliRunner

from convnext_study.cli import app
from convnext_study.evaluation.evaluate import evaluate_by_task
from convnext_study.evaluation.load_run import EvaluationError, load_run
from convnext_study.runs.records import Result
from convnext_study.training.loop import train
from convnext_study.training.runtime import Runtime


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("study") / "runs" / "dense"
    return folder, train(exit_run(), folder)


def test_its_own_metrics_again(dense: tuple[Path, Result]) -> None:
    folder, result = dense
    done = CliRunner().invoke(app, ["eval", str(folder), "--device", "cpu", "--trust", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["primary"] == result.primary
    assert told["images"] == result.val_images
    for name, metric in result.metrics.items():
        assert told["metrics"][name]["value"] == pytest.approx(metric.value, abs=1e-3), name
    shown = CliRunner().invoke(app, ["eval", str(folder), "--device", "cpu", "--trust"])
    assert f"{result.value:.2f} %" in shown.stdout


def test_on_data_of_other_classes_it_is_refused(dense: tuple[Path, Result]) -> None:
    loaded = load_run(dense[0], trust=True)
    assert loaded.run is not None
    assert loaded.class_names is not None
    with pytest.raises(EvaluationError, match="classes of other names, or in another order"):
        evaluate_by_task(replace(loaded, class_names="other"), loaded.run.data, Runtime())
