"""A run measured again by its own task: what it was trained for, on its validation part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.evaluation.load_run import EvaluationError, LoadedModel
from convnext_study.runs.metrics import Metric

if TYPE_CHECKING:
    from convnext_study.training.runtime import Runtime


@dataclass(frozen=True)
class TaskResult:
    """What was measured, and on what; ``primary`` names the metric that the run is judged by."""

    model: str
    weights: str
    data: str
    images: int
    metrics: dict[str, Metric]
    primary: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {
            **vars(self),
            "metrics": {name: one.model_dump() for name, one in self.metrics.items()},
        }


def is_classifier(loaded: LoadedModel) -> bool:
    """Whether a network tells classes of images apart, as all do that were not trained here."""
    from convnext_study.training.tasks import task_class
    from convnext_study.training.tasks.classification import Classification

    if loaded.run is None or ":" in loaded.run.task.name:
        return True
    return issubclass(task_class(loaded.run.task.name), Classification)


def evaluate_by_task(loaded: LoadedModel, uri: str, runtime: Runtime) -> TaskResult:
    """Evaluate a run's network by the run's task.

    Args:
        loaded: of a run of a task of this package.
        uri: data of that task, the run's own or other.
        runtime: on what.

    Raises:
        EvaluationError: the data do not suit the network.
        ScoresError: what it says of an image is not finite.
    """
    from convnext_study.training.guard import ScoresError
    from convnext_study.training.outcome import evaluate
    from convnext_study.training.state import autocast_of
    from convnext_study.training.tasks import make_task

    if loaded.run is None:
        raise EvaluationError(f"{loaded.name}: was not trained here, so no task is known")
    runtime.apply()
    task = make_task(loaded.run.model_copy(update={"data": uri}), runtime)
    if task.num_classes not in (None, loaded.classes):
        raise EvaluationError(
            f"{loaded.name} was trained for {loaded.classes} classes, {uri} has {task.num_classes}"
        )
    loaded.check_names(uri, task.fingerprint.get("class_names"))
    net: Any = loaded.net
    net = net.to(runtime.device, memory_format=runtime.memory_format)
    try:
        with autocast_of(loaded.precision, runtime.device):
            found = evaluate(task, net)
    except ScoresError as error:
        raise ScoresError(f"{loaded.name} on {uri}: {error}, so it has no result") from None
    return TaskResult(
        model=loaded.name,
        weights=loaded.weights,
        data=uri,
        images=found.images,
        metrics=dict(found.metrics),
        primary=found.primary,
        notes=(*loaded.notes, *left_out(found.corrupt_images, found.images)),
    )


def left_out(corrupt: int, images: int) -> list[str]:
    """What to note where images could not be read."""
    if not corrupt:
        return []
    return [f"{corrupt} of {corrupt + images} validation images cannot be read and are left out"]
