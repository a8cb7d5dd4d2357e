"""Runs that take seconds, their jobs, and what their logs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convnext_study.launchers.graph import Job
from convnext_study.models.builders import ROADMAP_BUILDER
from convnext_study.recipes import MODERN_SMALL
from convnext_study.roadmap import get_roadmap
from convnext_study.runs.files import LOG
from convnext_study.runs.records import ModelRef, Run
from convnext_study.training.runtime import Runtime


def make_tiny_run(step: str = "layer_norm", **changes: Any) -> Run:
    """A row of the nano road, narrower still, two epochs on digits: a few seconds."""
    spec = get_roadmap("nano").upto(step).replace(width=8, stem_stride=4, kernel=3)
    fields = {
        "epochs": 2,
        "warmup_epochs": 0,
        "global_batch_size": 128,
        "drop_path": 0.1,
        **changes,
    }
    return Run(
        study="test",
        name="tiny",
        model=ModelRef(builder=ROADMAP_BUILDER, args=spec.to_dict()),
        recipe=MODERN_SMALL.replace(**fields).model_dump(mode="json"),
        data="digits",
        seed=0,
    )


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
