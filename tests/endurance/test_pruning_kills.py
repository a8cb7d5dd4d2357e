"""The pruning study, killed five times at random with all it started, ends bit for bit the same.

Run by `make endurance`. The moments are random ones of random epochs; their seeds are fixed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.training import assert_same

pytestmark = pytest.mark.endurance

KILLS = 5
NAMES = (
    "dense",
    "half-fine_tuned",
    "thinet-fine_tuned",
    "slimming-dense",
    "slimming-scratch_e",
    "sparse-inherited",
)
STUDY = f"""
from convnext_study.studies.pruning.plans import runs_of


def runs(context):
    return [run for run in runs_of(context) if run.name.partition("-")[2] in {NAMES!r}]
"""


def start(file: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "convnext_study", "study", str(file), "--out", str(out)]
    options = ["--epochs", "4", "--jobs", "2", "--threads", "1", "--device", "cpu"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, *options], stdout=quiet, stderr=quiet, process_group=0)


def epochs_done(out: Path) -> int:
    logs = (path.read_text() for path in (out / "runs").glob("*/log.jsonl"))
    return sum(log.count('"event": "epoch"') for log in logs)


def dies(process: subprocess.Popen[bytes], out: Path, moments: random.Random) -> bool:
    """Kill the group some epochs on, at a random moment of one; False where it ended before."""
    goal = epochs_done(out) + moments.randint(1, 3)
    while process.poll() is None and epochs_done(out) < goal:
        time.sleep(0.02)
    time.sleep(moments.uniform(0, 0.3))
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def test_a_study_of_arms_and_parents(tmp_path: Path) -> None:
    file = tmp_path / "few.py"
    file.write_text(STUDY)
    assert start(file, tmp_path / "calm").wait() == 0
    assert epochs_done(tmp_path / "calm") > 3 * KILLS  # so that all kills come before the end
    moments = random.Random(4)
    for _ in range(KILLS):
        assert dies(start(file, tmp_path / "killed"), tmp_path / "killed", moments)
    assert start(file, tmp_path / "killed").wait() == 0
    calm = sorted((tmp_path / "calm" / "runs").iterdir())
    assert len(calm) == len(NAMES)
    for folder in calm:
        assert_same(tmp_path / "killed" / "runs" / folder.name, folder)
