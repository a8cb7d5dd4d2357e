"""A dry run tells what would be trained, and what it would cost; nothing is trained or written."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.dense import make_pairs
from support.fakes import write_run
from typer.testing import CliRunner, Result

from convnext_study.cli import app
from convnext_study.errors import UserError
from convnext_study.experiments.roadmap_runs import roadmap_runs
from convnext_study.roadmap import get_roadmap

NANO = get_roadmap("nano")
SITE = 'partition = "gpu"\ngpus = 2\ncpus_per_process = 4\nminutes = 60\n'
ROWS = ["--data", "digits", "--steps", "resnet,gelu", "--seeds", "2"]


@pytest.fixture(autouse=True)
def nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, where every way to start a training is an error."""

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a training was started")

    for launcher in ("local.Pool.run", "torchrun.run_torchrun", "slurm.submit.submit"):
        monkeypatch.setattr(f"convnext_study.launchers.{launcher}", started)
    monkeypatch.chdir(tmp_path)
    yield


def invoke(*arguments: str) -> Result:
    done = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done


def rows_of(shown: str) -> dict[str, list[str]]:
    """The table's rows by their first cells; columns are two spaces apart."""
    lines = [re.split(r"  +", line.strip()) for line in shown.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 5}


def flops(rows: dict[str, list[str]], name: str) -> float:
    return float(rows[name][-3])


@pytest.mark.parametrize(
    "where", [[], ["--launcher", "torchrun", "--processes", "2"]], ids=["local", "torchrun"]
)
def test_runs_and_costs_and_nothing_else(tmp_path: Path, where: list[str]) -> None:
    shown = invoke("roadmap", *ROWS, *where).stdout
    rows = rows_of(shown)
    split = "64 = 2 x 1 x 32" if where else "64 = 1 x 1 x 64"
    assert [rows[name][:4] for name in ("resnet", "gelu")] == 2 * [["2", "to do", "10", split]]
    assert list(rows)[-1] == "total"
    assert rows["total"][0] == "4"
    parts = [flops(rows, name) for name in ("resnet", "gelu")]
    assert flops(rows, "total") == pytest.approx(sum(parts), rel=0.01)
    assert "4 runs, 0 done already" in shown
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_and_half_done_is_told(tmp_path: Path) -> None:
    done, half, _, _ = roadmap_runs(
        NANO, [NANO.variant(name) for name in ("resnet", "gelu")], data="digits", seeds=(0, 1)
    )
    write_run(tmp_path / "study", done)
    write_run(tmp_path / "study", half, status="unfinished", epochs=4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    shown = invoke("roadmap", *ROWS, "--out", "study").stdout
    assert "4 runs, 1 done already" in shown
    rows = rows_of(shown)
    assert rows["resnet"][1] == "1 done, 1 to do"
    assert rows["gelu"][1] == "1 at epoch 4 of 10, 1 to do"
    # The second row is to be trained for six epochs of ten, and two others from the start.
    assert rows["left"][0] == "3"
    left = 0.5 * flops(rows, "resnet") + 0.8 * flops(rows, "gelu")
    assert flops(rows, "left") == pytest.approx(left, rel=0.01)
    assert "at the speed of the 1 finished runs: " in shown
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_plan_of_the_paper_on_other_gpus_without_its_data(tmp_path: Path) -> None:
    """ImageNet's size is known; the JSON has what the table shows."""
    words = ["roadmap", "--regime", "t", "--data", "folder:gone", "--steps", "gelu"]
    words += ["--launcher", "torchrun", "--processes", "8", "--gpu", "h100", "--mfu", "0.2"]
    shown = invoke(*words)
    told = json.loads(invoke(*words, "--json").stdout)
    (run,) = told["runs"]
    assert (run["batch_per_device"], run["state"], run["left"]) == (512, "to do", 1)
    assert "data: gone: no such folder; ImageNet-1K's size is used" in shown.stdout
    assert told["total"]["gpu_hours"] == run["gpu_hours"]
    assert f"{run['gpu_hours']:,.1f} h" in rows_of(shown.stdout)["total"]
    assert f"8 GPUs per run: about {run['gpu_hours'] / 8:,.1f} h" in shown.stdout
    assert "0.2 of 494.7 TFLOP/s peak of an H100" in shown.stdout
    assert run["images_that_fit"] > run["micro_batch_size"] == 128
    assert told["recipes"][0]["recipe"] == "published"
    *_, warning = told["warnings"]
    assert warning.startswith("1 seed(s)")
    assert f"warning: {warning}" in shown.stdout


def test_slurm_prints_the_script_alone(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    done = invoke("roadmap", *ROWS, "--launcher", "slurm", "--cluster", "site.toml")
    assert done.stdout.startswith("#!/bin/bash\n")
    assert "#SBATCH --array=0-3%4" in done.stdout
    assert "FLOPs" not in done.stdout
    assert rows_of(done.stderr)["total"][0] == "4"
    assert [path.name for path in tmp_path.iterdir()] == ["site.toml"]


def test_data_that_is_not_there_is_not_needed(tmp_path: Path) -> None:
    shown = invoke("roadmap", "--steps", "gelu", "--data", "cifar10:gone", "--download").stdout
    assert "data: gone: cifar10 is not there yet; its known size is used" in shown
    assert "50,000 training" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_told_too(tmp_path: Path) -> None:
    """Also one of networks from elsewhere, whose costs are counted on what their builders make."""
    (tmp_path / "own.py").write_text(
        "def build(args, *, num_classes, drop_path, init):\n"
        "    from torch import nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, num_classes))\n"
        "def runs(context):\n"
        "    flat = context.network('flat', 'one layer', f'{__file__}:build')\n"
        "    return [*context.runs(['gelu']), *flat]\n"
        "def report(records, context):\n"
        "    raise AssertionError('there is nothing to report of a dry run')\n"
    )
    shown = invoke("study", "own.py", "--data", "digits", "--epochs", "1").stdout
    macs, images = 3 * 64 * 64 * 10, 1010 // 64 * 64
    assert flops(rows_of(shown), "flat") == pytest.approx(2 * macs * (3 * images + 787), rel=0.01)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_a_bad_pair_fails_before_anything_runs_unless_it_is_skipped(
    tmp_path: Path, choice: str
) -> None:
    (make_pairs(tmp_path) / "train" / "masks" / "1.png").unlink()
    words = ["study", "anytime", "--data", f"pairs:{tmp_path}", "--corrupt-images", choice]
    done = CliRunner().invoke(app, [*words, "--dry-run"])
    assert isinstance(done.exception, UserError) == (choice == "stop")
    assert ("masks/1.png: is missing" in str(done.exception)) == (choice == "stop")
