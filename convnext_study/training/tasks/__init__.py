"""What can be trained: one file for each kind of task."""

from typing import Any

from convnext_study.errors import did_you_mean
from convnext_study.imports import TaskError, of_study, resolve
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Task

# Where the tasks of this package are. A study's own are the ``TASKS`` of its ``tasks.py``, and
# their names begin with the study's.
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
    return resolve(_address(name))


def _address(name: str) -> str:
    if ":" in name:
        return name
    if name in TASKS:
        return TASKS[name]
    own: dict[str, str] = of_study(name, "tasks:TASKS")
    if name not in own:
        raise TaskError(f"task {name!r}{did_you_mean(name, [*TASKS, *own])}")
    return own[name]
