"""The scripts of launch/: a dry run of each says what it would train, and trains nothing."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convnext_study.cli import app

ROOT = Path(__file__).parents[1]
IMAGES = {"laptop": "9,024", "one_gpu": "50,000", "imagenet_slurm": "1,281,167"}
scripts = pytest.mark.parametrize("script", IMAGES)


def launch(script: str, folder: Path, *arguments: str) -> list[str]:
    """The commands that a script gives, of which none is run."""
    stand_in = folder / "bin" / "convnext-study"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$@" >> calls\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(ROOT / "launch" / f"{script}.sh"), *arguments],
        cwd=folder,
        env={"PATH": path, "IMAGENET": str(folder / "imagenet")},
        check=True,
    )
    return (folder / "calls").read_text().splitlines()


def test_there_are_no_others() -> None:
    assert {path.stem for path in (ROOT / "launch").glob("*.sh")} == {*IMAGES}


@scripts
def test_a_dry_run_tells_runs_and_costs_and_writes_nothing(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call,) = launch(script, tmp_path, "--dry-run")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    done = CliRunner().invoke(app, shlex.split(call), catch_exceptions=False)
    assert done.exit_code == 0
    told = done.stderr if script == "imagenet_slurm" else done.stdout
    assert "51 runs, 0 done already" in told
    assert sum(" to do " in line for line in told.splitlines()) == 17 + 1  # and their total
    assert f"{IMAGES[script]} training" in told
    assert list(empty.iterdir()) == []
    if script == "imagenet_slurm":  # the batch script is alone on standard output
        assert done.stdout.startswith("#!/bin/bash\n")
        assert "#SBATCH --array=0-50%4\n" in done.stdout
        assert "#SBATCH --gpus-per-node=8\n" in done.stdout
        assert not subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode


@scripts
def test_without_it_the_road_map_is_trained_and_reported(tmp_path: Path, script: str) -> None:
    calls = launch(script, tmp_path, "--jobs", "1")
    assert calls[0].startswith("roadmap ") and calls[0].endswith(" --jobs 1")
    here = [] if script == "imagenet_slurm" else [f"report runs/{script.replace('_', '-')}"]
    assert calls[1:] == here


def test_data_must_be_named() -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "imagenet_slurm.sh")],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "name the folder with train/ and val/" in done.stderr
