"""What can be trained: one file for each kind of task."""

from convnext_study.imports import resolve
from convnext_study.runs.records import Run
from convnext_study.training.runtime import Runtime
from convnext_study.training.task import Task


def make_task(run: Run, runtime: Runtime) -> Task:
    """The task that a run names: ``classification``, or ``module:Class`` for a study of its own.

    Raises TaskError where there is none.
    """
    if run.task == "classification":
        from convnext_study.training.tasks.classification import Classification

        return Classification(run, runtime)
    task: Task = resolve(run.task)(run, runtime)
    return task
