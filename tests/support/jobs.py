"""Jobs of tiny runs, and what their logs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convnext_study.launchers.graph import Job
from convnext_study.runs.files import LOG
from convnext_study.training.runtime import Runtime
from support.runs import make_tiny_run


def make_jobs(study: Path, count: int = 2, **changes: Any) -> list[Job]:
    runs = [
        make_tiny_run(**changes).model_copy(update={"seed": seed, "name": f"run{seed}"})
        for seed in range(count)
    ]
    return [Job(run, study / "runs" / run.id, Runtime()) for run in runs]


def append(job: Job, *lines: dict[str, Any]) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / LOG).open("a") as log:
        log.writelines(json.dumps(line) + "\n" for line in lines)
