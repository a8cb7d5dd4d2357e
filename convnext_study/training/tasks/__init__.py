"""What can be trained: one file for each kind of task (no torch here)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.imports import TaskError, resolve, study_addresses

if TYPE_CHECKING:
    from convnext_study.runs.records import Run
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.task import Task

# Where the tasks of this package are; a study's own are those of its `Study`.
TASKS = {
    "classification": "convnext_study.training.tasks.classification:Classification",
    "segmentation": "convnext_study.training.tasks.segmentation:Segmentation",
    "pose": "convnext_study.training.tasks.pose:Pose",
}


def make_task(run: Run, runtime: Runtime) -> Task:
    """The task that a run names, with its arguments: it is called with the run and the runtime.

    Raises TaskError where there is none.
    """
    task: Task = task_class(run.task.name)(run, runtime)
    return task


def task_class(name: str) -> Any:
    """What makes the tasks of that name. Raises TaskError where there is none."""
    known = {**TASKS, **study_addresses("tasks")}
    if ":" not in name and name not in known:
        raise TaskError(f"task {name!r}{did_you_mean(name, list(known))}")
    return resolve(known.get(name, name))
