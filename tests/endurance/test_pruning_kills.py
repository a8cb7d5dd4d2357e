"""The pruning study, killed five times at random with all it started, ends bit for bit the same.

Run by `make endurance`. The seeds of the moments are fixed; the moments fall where the machine is.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
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
from convnext_study.studies.pruning.arms import runs_of


def runs(context):
    return [run for run in runs_of(context) if run.name.partition("-")[2] in {NAMES!r}]
"""


def start(file: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "convnext_study", "study", str(file), "--out", str(out)]
    options = ["--epochs", "4", "--jobs", "2", "--threads", "1", "--device", "cpu"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, *options], stdout=quiet, stderr=quiet, process_group=0)


def test_a_study_of_arms_and_parents(tmp_path: Path) -> None:
    file = tmp_path / "few.py"
    file.write_text(STUDY)
    assert start(file, tmp_path / "calm").wait() == 0
    moments, kills = random.Random(4), 0
    while True:
        process = start(file, tmp_path / "killed")
        try:
            # Long enough to start: a kill before anything began would show nothing.
            code = process.wait(moments.uniform(8, 20) if kills < KILLS else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert code == 0
        break
    assert kills > 0
    calm = sorted((tmp_path / "calm" / "runs").iterdir())
    assert len(calm) == len(NAMES)
    for folder in calm:
        assert_same(tmp_path / "killed" / "runs" / folder.name, folder)
