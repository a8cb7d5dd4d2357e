"""The kinds of tasks, one file each (this module imports no torch)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convnext_study.errors import did_you_mean
from convnext_study.imports import TaskError, resolve, study_addresses

if TYPE_CHECKING:
    from convnext_study.runs.records import Run
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.task import Task

# The package's own tasks; those of a study are listed in its `Study`.
TASKS = {
    "classification": "convnext_study.training.tasks.classification:Classification",
    "segmentation": "convnext_study.training.tasks.segmentation:Segmentation",
    "pose": "convnext_study.training.tasks.pose:Pose",
}


def make_task(run: Run, runtime: Runtime) -> Task:
    """The task that a run names, constructed with the run and the runtime.

    Raises TaskError for an unknown name.
    """
    task: Task = task_class(run.task.name)(run, runtime)
    return task


def task_class(name: str) -> Any:
    """The class (or factory) of the tasks of that name. Raises TaskError for an unknown name."""
    addresses = {**TASKS, **study_addresses("tasks")}
    if ":" not in name and name not in addresses:
        raise TaskError(f"task {name!r}{did_you_mean(name, list(addresses))}")
    return resolve(addresses.get(name, name))
