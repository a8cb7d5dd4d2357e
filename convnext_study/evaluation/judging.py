"""Every validation image once, and what may be said of the accuracy that comes out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.evaluation.crops import crop_steps
from convnext_study.evaluation.subjects import EvaluationError, Subject
from convnext_study.results.statistics import wilson_interval

if TYPE_CHECKING:
    from torch import Tensor

    from convnext_study.training.data import Data
    from convnext_study.training.recipe import Recipe
    from convnext_study.training.task import Machine

TOP = 5
IMAGENET_CLASSES, IMAGENET_VAL = 1000, 50_000


@dataclass(frozen=True)
class Accuracy:
    """Images right, and the share in percent with Wilson's 95 % interval."""

    right: int
    percent: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, images: int) -> Accuracy:
        interval = wilson_interval(right, images)
        return cls(right, 100 * right / images, interval.low, interval.high)


@dataclass(frozen=True)
class Verdict:
    """What was measured, and on what.

    ``top5`` is None for five classes and less. ``correct`` is hex, one bit an image in order, as
    in a run's result, for paired tests. ``precision`` is that of the run's recipe, as in training.
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
    correct: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def judge(subject: Subject, data: Data, batch: int, machine: Machine) -> Verdict:
    """Run every validation image through the network once.

    Raises EvaluationError where the network tells other classes apart than the data has.
    """
    from convnext_study.training.engine import pack_bits

    if subject.classes != data.num_classes:
        raise EvaluationError(
            f"{subject.name} tells {subject.classes} classes apart, {data.uri} has "
            f"{data.num_classes}: its accuracy there means nothing"
        )
    prepared, recipe = _prepare(subject, data)
    batches = _batches(prepared, recipe, subject.preparation.crop_mode, batch, machine)
    began = time.perf_counter()
    first, among = _ranks(subject, batches, machine)
    seconds = time.perf_counter() - began
    images = len(first)
    return Verdict(
        model=subject.name,
        weights=subject.weights,
        data=data.uri,
        images=images,
        classes=data.num_classes,
        transform=f"{_transform(subject, data)}",
        precision=subject.precision,
        top1=Accuracy.of(int(first.sum()), images),
        top5=Accuracy.of(int(among.sum()), images) if data.num_classes > TOP else None,
        images_per_s=images / seconds,
        measured_on=_measured_on(data, images),
        notes=(*subject.notes, *_notes(subject, data)),
        correct=pack_bits(first),
    )


def _prepare(subject: Subject, data: Data) -> tuple[Data, Recipe]:
    """The data with the network's normalisation, and a recipe with its evaluation transform."""
    from convnext_study.training.recipe import get_recipe, make_recipe

    asked = subject.preparation
    base = subject.run.recipe if subject.run else get_recipe("modern").model_dump()
    recipe = make_recipe(
        {
            **base,
            "image_size": asked.image_size or data.size,
            "eval_crop_ratio": asked.crop_ratio,
            "interpolation": asked.interpolation,
        }
    )
    if asked.mean is None or asked.std is None:
        return data, recipe
    return dataclasses.replace(data, mean=asked.mean, std=asked.std), recipe


def _batches(
    data: Data, recipe: Recipe, crop_mode: str, batch: int, machine: Machine
) -> Iterator[Any]:
    """Images (n, 3, H, W), normalised and on the device, and their labels."""
    import torch

    from convnext_study.training.data.batches import val_batches
    from convnext_study.training.data.device import Prepare, prefetcher
    from convnext_study.training.data.loading import Samples
    from convnext_study.training.data.pixels import Steps
    from convnext_study.training.data.pool import Readers

    side = recipe.image_size or data.size
    steps = crop_steps(
        crop_mode, side, int(side / recipe.eval_crop_ratio), recipe.interpolation, data.mean
    )
    samples = Samples(data.val, Steps(steps), None, data.bad.on_bad)
    pin = torch.device(machine.device).type == "cuda"
    readers = Readers({"val": samples}, machine.workers, batch, pin=pin)
    prepare = Prepare(data, machine.device, machine.memory_format)
    ahead = prefetcher(machine.device)
    try:
        for one in val_batches(data, recipe, batch, lambda: readers, ahead=ahead):
            yield prepare(one)
    finally:
        readers.close()


def _ranks(subject: Subject, batches: Iterator[Any], machine: Machine) -> tuple[Tensor, Tensor]:
    """Whether the right class is first, and whether it is among the first five: bools (N,)."""
    import torch

    from convnext_study.matrices import use_matrices
    from convnext_study.training.precision import autocast_of

    net: Any = subject.net
    net = net.to(machine.device, memory_format=machine.memory_format)
    if machine.compile:
        if torch.device(machine.device).type == "cpu":
            use_matrices(net)
        net = torch.compile(net)
    first: list[Tensor] = []
    among: list[Tensor] = []
    with torch.inference_mode():
        for images, labels in batches:
            with autocast_of(subject.precision, machine.device):
                logits = net(images)
            if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
                raise EvaluationError(f"{subject.name}: answers with no matrix of class scores")
            top = logits.float().topk(min(TOP, logits.shape[1])).indices.cpu()
            right = top == labels.cpu()[:, None]
            first.append(right[:, 0])
            among.append(right.any(1))
    return torch.cat(first), torch.cat(among)


def _transform(subject: Subject, data: Data) -> str:
    asked = subject.preparation
    size = asked.image_size or data.size
    if asked.crop_ratio == 1.0 and size == data.size and data.size < 224:
        return f"the images as they are, {size} by {size}"
    return str(dataclasses.replace(asked, image_size=size))


def _measured_on(data: Data, images: int) -> str:
    """What the numbers are numbers of, and whether the paper's may stand beside them."""
    what = f"the {images} validation images of {data.uri}, {data.num_classes} classes"
    if data.num_classes == IMAGENET_CLASSES and images == IMAGENET_VAL:
        return (
            f"{what}: as many as ImageNet-1K's validation set has; if they are that, the paper's "
            "figures compare"
        )
    return f"{what}. This is not ImageNet-1K: no figure of the paper compares"


def _notes(subject: Subject, data: Data) -> list[str]:
    if subject.run is None or subject.run.data == data.uri:
        return []
    return [f"trained on {subject.run.data}: that its classes are these, in this order, is assumed"]
