"""The scripts of launch/: a dry run of each says what it would train, and trains nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("laptop", "one_gpu", "imagenet_slurm")
COMMAND = f'#!/bin/sh\nexec {sys.executable} -m convnext_study "$@"\n'
# In place of the command: its arguments, one call a line.
RECORD = '#!/bin/sh\necho "$@" >> calls\n'


def launch(
    script: str, folder: Path, *arguments: str, command: str = COMMAND
) -> subprocess.CompletedProcess[str]:
    """Run a script in an empty folder, with ``command`` as its ``convnext-study``."""
    stand_in = folder / "bin" / "convnext-study"
    stand_in.parent.mkdir()
    stand_in.write_text(command)
    stand_in.chmod(0o755)
    empty = folder / "empty"
    empty.mkdir()
    return subprocess.run(
        ["bash", str(ROOT / "launch" / f"{script}.sh"), *arguments],
        cwd=empty,
        env={
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder / "home"),
            "IMAGENET": str(folder / "imagenet"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_no_others() -> None:
    assert {path.stem for path in (ROOT / "launch").glob("*.sh")} == set(SCRIPTS)


@pytest.mark.parametrize(
    ("script", "images"),
    [("laptop", "1,195"), ("one_gpu", "50,000"), ("imagenet_slurm", "1,281,167")],
)
def test_a_dry_run_tells_runs_and_costs_and_writes_nothing(
    tmp_path: Path, script: str, images: str
) -> None:
    done = launch(script, tmp_path, "--dry-run")
    assert done.returncode == 0, done.stderr
    told = done.stderr if script == "imagenet_slurm" else done.stdout
    assert "51 runs, 0 done already" in told
    assert sum(" to do " in line for line in told.splitlines()) == 51
    assert f"{images} training" in told
    assert "to do: " in told and "FLOPs" in told
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "home").exists()


def test_the_batch_script_of_imagenet_is_alone_on_standard_output(tmp_path: Path) -> None:
    done = launch("imagenet_slurm", tmp_path, "--dry-run", "--steps", "gelu")
    assert done.stdout.startswith("#!/bin/bash\n")
    assert "#SBATCH --array=0-2%3\n" in done.stdout
    assert "#SBATCH --gpus-per-node=8\n" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False).returncode == 0


def test_data_must_be_named(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "imagenet_slurm.sh")],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "name the folder with train/ and val/" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_it_the_road_map_is_trained_and_reported(tmp_path: Path, script: str) -> None:
    done = launch(script, tmp_path, "--jobs", "1", command=RECORD)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "empty" / "calls").read_text().splitlines()
    assert calls[0].startswith("roadmap ") and calls[0].endswith(" --jobs 1")
    here = [] if script == "imagenet_slurm" else [f"report runs/{script.replace('_', '-')}"]
    assert calls[1:] == here
