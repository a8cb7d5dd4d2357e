"""Evaluate a network on every validation image once, and state what the accuracy refers to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convnext_study.data import digest_of_names, pool
from convnext_study.data.dataset import DatasetPair
from convnext_study.data.sources import IMAGENET
from convnext_study.data.transforms.crops import crop_steps
from convnext_study.data.transforms.image import Steps
from convnext_study.data.workers import Transform
from convnext_study.errors import RunFailed
from convnext_study.evaluation.load_run import EvaluationError, LoadedModel
from convnext_study.models.fast_conv import use_gemm_convs
from convnext_study.recipes import get_recipe, make_recipe
from convnext_study.results.statistics.intervals import wilson_interval
from convnext_study.runs.metrics import Metric, Samples
from convnext_study.runs.records import ModelRef, Run
from convnext_study.training.guard import ScoresError
from convnext_study.training.outcome import evaluate as evaluate_task
from convnext_study.training.runtime import Runtime
from convnext_study.training.state import autocast_of
from convnext_study.training.task import Evaluation
from convnext_study.training.tasks import make_task
from convnext_study.training.tasks.base import Evidence, ImageTask, network_output
from convnext_study.training.tasks.classification import Classification

TOP = 5


@dataclass(frozen=True)
class TaskResult:
    """The measured metrics and their data; ``primary`` names the run's primary metric."""

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
            "metrics": {name: metric.model_dump() for name, metric in self.metrics.items()},
        }


@dataclass(frozen=True)
class Accuracy:
    """The number of correct images, and the accuracy in percent with Wilson's 95 % interval."""

    right: int
    percent: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, images: int) -> Accuracy:
        """From the numbers of correct images and of all."""
        interval = wilson_interval(right, images)
        return cls(right, 100 * right / images, interval.low, interval.high)


@dataclass(frozen=True)
class EvalResult:
    """The measured accuracy and its data.

    ``images`` were read; ``corrupt_images`` could not be, and are left out. ``top5`` is None for
    five classes or fewer. ``correct_bits`` is hex, one bit per image in order, as in a run's
    result, for paired tests. ``precision`` is that of the run's recipe, as in training.
    """

    model: str
    weights: str
    data: str
    images: int
    classes: int
    transform: str
    precision: str
    top1: Accuracy
    top5: Accuracy | None
    images_per_s: float
    measured_on: str
    notes: tuple[str, ...]
    correct_bits: str
    corrupt_images: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return dataclasses.asdict(self)


def evaluate_by_task(loaded: LoadedModel, uri: str, runtime: Runtime) -> TaskResult:
    """Evaluate a run's network by the run's task.

    Args:
        loaded: the network of a run.
        uri: data of the run's task, its own or other data.
        runtime: the device and its settings.

    Raises:
        EvaluationError: the data does not fit the network.
        ScoresError: its output for an image is not finite.
    """
    if loaded.run is None:
        raise EvaluationError(f"{loaded.name}: was not trained here, so its task is unknown")
    runtime.apply()
    task = make_task(loaded.run.model_copy(update={"data": uri}), runtime)
    if task.num_classes not in (None, loaded.classes):
        raise EvaluationError(
            f"{loaded.name} was trained for {loaded.classes} classes, {uri} has {task.num_classes}"
        )
    loaded.check_names(uri, task.fingerprint.get("class_names"))
    evaluation = _measure(task, loaded, uri, runtime)
    return TaskResult(
        model=loaded.name,
        weights=loaded.weights,
        data=uri,
        images=evaluation.images,
        metrics=dict(evaluation.metrics),
        primary=evaluation.primary,
        notes=(*loaded.notes, *left_out(evaluation.corrupt_images, evaluation.images)),
    )


def evaluate(loaded: LoadedModel, data: DatasetPair, batch: int, runtime: Runtime) -> EvalResult:
    """Run every validation image through a classifier once, except for skipped bad ones.

    Raises EvaluationError if the network has another number of classes than the data, DataError
    for a bad image, or if none can be read.
    """
    if loaded.classes != data.num_classes:
        raise EvaluationError(
            f"{loaded.name} distinguishes {loaded.classes} classes, {data.uri} has "
            f"{data.num_classes}: its accuracy there is meaningless"
        )
    loaded.check_names(data.uri, digest_of_names(data.classes))
    task = _Ranked(loaded, data, batch, runtime)
    start = time.perf_counter()
    try:
        evaluation = _measure(task, loaded, data.uri, runtime)
    finally:
        task.close()
    images, seconds = evaluation.images, time.perf_counter() - start
    top1, top5 = task.ranks["first"], task.ranks["among"]
    skipped_note = left_out(evaluation.corrupt_images, images)
    return EvalResult(
        model=loaded.name,
        weights=loaded.weights,
        data=data.uri,
        images=images,
        classes=data.num_classes,
        transform=f"{_transform(loaded, data)}",
        precision=loaded.precision,
        top1=Accuracy.of(int(top1.sum()), images),
        top5=Accuracy.of(int(top5.sum()), images) if data.num_classes > TOP else None,
        images_per_s=images / seconds,
        measured_on=_measured_on(data, images),
        notes=(*loaded.notes, *_notes(loaded, data), *data.notes, *skipped_note),
        correct_bits=Samples.of_bits(top1.numpy()).data,
        corrupt_images=evaluation.corrupt_images,
    )


def _measure(task: Any, loaded: LoadedModel, uri: str, runtime: Runtime) -> Evaluation:
    net: Any = loaded.net
    net = net.to(runtime.device, memory_format=runtime.memory_format)
    if torch.device(runtime.device).type == "cpu":
        use_gemm_convs(net)
    if runtime.compile:
        net = torch.compile(net)
    try:
        with autocast_of(loaded.precision, runtime.device):
            return evaluate_task(task, net, _check_readers)
    except ScoresError as error:
        raise ScoresError(f"{loaded.name} on {uri}: {error}, so there is no result") from None


def _check_readers() -> None:
    if reason := pool.failure():
        raise RunFailed(reason)


class _Ranked(Classification):
    """Validation images with a network's own transform: whether the correct class is the first
    prediction, and whether it is among the first five."""

    def __init__(
        self, loaded: LoadedModel, data: DatasetPair, batch: int, runtime: Runtime
    ) -> None:
        transform = loaded.transform
        if transform.mean is not None and transform.std is not None:
            data = dataclasses.replace(data, mean=transform.mean, std=transform.std)
        base = loaded.run.recipe if loaded.run else get_recipe("modern").model_dump()
        recipe = make_recipe(
            {
                **base,
                "image_size": transform.image_size or data.size,
                "crop_pct": transform.crop_pct,
                "interpolation": transform.interpolation,
                "global_batch_size": batch,
                "mixup": 0.0,
                "cutmix": 0.0,
            }
        )
        run = Run(
            study="eval",
            name=loaded.name,
            model=loaded.run.model if loaded.run else ModelRef(builder=loaded.name, args={}),
            recipe=recipe.model_dump(mode="json"),
            data=data.uri,
            seed=0,
        )
        ImageTask.__init__(self, run, runtime, data, eval_batch=batch)
        self._crop_mode = transform.crop_mode
        self.ranks: Evidence = {}

    def transforms(self) -> tuple[Transform, Transform]:
        side = self.recipe.image_size or self.data.size
        resized = int(side / self.recipe.crop_pct)
        crop = self._crop_mode, side, resized, self.recipe.interpolation, self.data.mean
        return Steps(crop_steps(*crop)), Steps(crop_steps(*crop))

    def scores(self, model: nn.Module, images: Tensor) -> Sequence[Tensor]:
        logits = network_output(model, images, self.run.name)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise EvaluationError(f"{self.run.name}: does not return a matrix of class scores")
        return [logits.float()]

    def measure(self, exits: Sequence[Tensor], labels: Tensor) -> Evidence:
        correct = exits[0].topk(min(TOP, exits[0].shape[1])).indices == labels[:, None]
        return {"first": correct[:, 0], "among": correct.any(1)}

    def metrics(self, evidence: Evidence) -> tuple[Mapping[str, Metric], str]:
        self.ranks = evidence
        value = 100 * float(evidence["first"].double().mean())
        return {"top1": Metric(value=value, label="top-1")}, "top1"

    def close(self) -> None:
        if self._readers is not None:
            self._readers.close()


def left_out(corrupt: int, images: int) -> list[str]:
    """Notes on images that could not be read."""
    if not corrupt:
        return []
    return [f"{corrupt} of {corrupt + images} validation images cannot be decoded and are left out"]


def _transform(loaded: LoadedModel, data: DatasetPair) -> str:
    transform = loaded.transform
    size = transform.image_size or data.size
    if transform.crop_pct == 1.0 and size == data.size and data.size < 224:
        return f"the images unresized, {size} by {size}"
    return str(dataclasses.replace(transform, image_size=size))


def _measured_on(data: DatasetPair, images: int) -> str:
    """What the numbers were measured on, and whether they compare with the paper's."""
    scope = f"the {images} validation images of {data.uri}, {data.num_classes} classes"
    if (images, data.num_classes) == IMAGENET[1:3]:
        return (
            f"{scope}: as many as in ImageNet-1K's validation set; if it is that set, the result "
            "is comparable with the paper's"
        )
    return f"{scope}. This is not ImageNet-1K: the result is not comparable with the paper's"


def _notes(loaded: LoadedModel, data: DatasetPair) -> list[str]:
    if loaded.run is None or loaded.class_names is not None or loaded.run.data == data.uri:
        return []
    return [
        f"trained on {loaded.run.data}: assuming that these classes are the same, in the same order"
    ]
