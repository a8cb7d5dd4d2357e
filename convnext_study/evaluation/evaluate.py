"""Every validation image once, and what may be said of the accuracy that comes out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convnext_study.data.transforms.evaluation import crop_steps
from convnext_study.errors import RunFailed
from convnext_study.evaluation.by_task import left_out
from convnext_study.evaluation.load_run import EvaluationError, LoadedModel
from convnext_study.results.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    from torch import Tensor

    from convnext_study.data.dataset import DatasetPair
    from convnext_study.recipes import Recipe
    from convnext_study.training.runtime import Runtime

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
        """From the number of images and how many of them are right."""
        interval = wilson_interval(right, images)
        return cls(right, 100 * right / images, interval.low, interval.high)


@dataclass(frozen=True)
class EvalResult:
    """What was measured, and on what.

    ``images`` were read; ``corrupt_images`` could not be, and are left out. ``top5`` is None for
    five classes and less. ``correct_bits`` is hex, one bit an image in order, as in a run's result,
    for paired tests. ``precision`` is that of the run's recipe, as in training.
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


def evaluate(loaded: LoadedModel, data: DatasetPair, batch: int, runtime: Runtime) -> EvalResult:
    """Run every validation image through the network once, but for bad ones that are skipped.

    Raises EvaluationError where the network has another number of classes than the data, DataError
    at a bad image, and where none can be read.
    """
    from convnext_study.data.dataset import check_readable
    from convnext_study.data.fingerprint import digest_of_names
    from convnext_study.runs.metrics import Samples

    if loaded.classes != data.num_classes:
        raise EvaluationError(
            f"{loaded.name} tells {loaded.classes} classes apart, {data.uri} has "
            f"{data.num_classes}: its accuracy there means nothing"
        )
    loaded.check_names(data.uri, digest_of_names(data.classes))
    prepared, recipe = _prepare(loaded, data)
    batches = _batches(prepared, recipe, loaded.transform.crop_mode, batch, runtime)
    began = time.perf_counter()
    before = data.corrupt.replaced
    first, among = _ranks(loaded, batches, runtime)
    seconds = time.perf_counter() - began
    images, corrupt = len(first), data.corrupt.replaced - before
    check_readable(data, images)
    return EvalResult(
        model=loaded.name,
        weights=loaded.weights,
        data=data.uri,
        images=images,
        classes=data.num_classes,
        transform=f"{_transform(loaded, data)}",
        precision=loaded.precision,
        top1=Accuracy.of(int(first.sum()), images),
        top5=Accuracy.of(int(among.sum()), images) if data.num_classes > TOP else None,
        images_per_s=images / seconds,
        measured_on=_measured_on(data, images),
        notes=(*loaded.notes, *_notes(loaded, data), *data.notes, *left_out(corrupt, images)),
        correct_bits=Samples.of_bits(first.numpy()).data,
        corrupt_images=corrupt,
    )


def _prepare(loaded: LoadedModel, data: DatasetPair) -> tuple[DatasetPair, Recipe]:
    """The data with the network's normalisation, and a recipe with its evaluation transform."""
    from convnext_study.recipes import get_recipe, make_recipe

    transform = loaded.transform
    base = loaded.run.recipe if loaded.run else get_recipe("modern").model_dump()
    recipe = make_recipe(
        {
            **base,
            "image_size": transform.image_size or data.size,
            "crop_pct": transform.crop_pct,
            "interpolation": transform.interpolation,
        }
    )
    if transform.mean is None or transform.std is None:
        return data, recipe
    return dataclasses.replace(data, mean=transform.mean, std=transform.std), recipe


def _batches(
    data: DatasetPair, recipe: Recipe, crop_mode: str, batch: int, runtime: Runtime
) -> Iterator[Any]:
    """Images (n, 3, H, W), normalised and on the device, and their labels."""
    import torch

    from convnext_study.data.device import Prepare, prefetcher
    from convnext_study.data.loader import make_readers, val_batches
    from convnext_study.data.transforms.image import Steps

    side = recipe.image_size or data.size
    steps = crop_steps(
        crop_mode, side, int(side / recipe.crop_pct), recipe.interpolation, data.mean
    )
    pin = torch.device(runtime.device).type == "cuda"
    readers = make_readers(data, None, Steps(steps), 0, runtime.workers, batch, pin=pin)
    prepare = Prepare(data, runtime.device, runtime.memory_format)
    ahead = prefetcher(runtime.device)
    try:
        for one in val_batches(data, recipe, batch, lambda: readers, ahead=ahead):
            if readers.failure:
                raise RunFailed(readers.failure)
            yield prepare(one)
    finally:
        readers.close()


def _ranks(loaded: LoadedModel, batches: Iterator[Any], runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Whether the right class is first, and whether it is among the first five: bools (N,)."""
    import torch

    from convnext_study.models.fast_conv import use_gemm_convs
    from convnext_study.training.guard import ScoresError, check_scores, finite_rows
    from convnext_study.training.state import autocast_of

    net: Any = loaded.net
    net = net.to(runtime.device, memory_format=runtime.memory_format)
    if runtime.compile:
        if torch.device(runtime.device).type == "cpu":
            use_gemm_convs(net)
        net = torch.compile(net)
    first: list[Tensor] = []
    among: list[Tensor] = []
    finite: list[Tensor] = []
    with torch.inference_mode():
        for images, labels in batches:
            with autocast_of(loaded.precision, runtime.device):
                logits = _scores(loaded.name, net, images)
            if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
                raise EvaluationError(f"{loaded.name}: answers with no matrix of class scores")
            top = logits.float().topk(min(TOP, logits.shape[1])).indices.cpu()
            right = top == labels.cpu()[:, None]
            first.append(right[:, 0])
            among.append(right.any(1))
            finite.append(finite_rows(logits))
    try:
        check_scores(finite, net)
    except ScoresError as error:
        raise ScoresError(f"{loaded.name}: {error}, so it has no accuracy") from None
    none = torch.zeros(0, dtype=torch.bool)
    return torch.cat([none, *first]), torch.cat([none, *among])


def _scores(name: str, net: Any, images: Tensor) -> Any:
    """What the network answers. Raises EvaluationError for images that it cannot take."""
    import torch

    try:
        return net(images)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        size = "x".join(map(str, images.shape[-2:]))
        raise EvaluationError(
            f"{name}: its network takes no images of {size} ({reason:.200}); give others with "
            "--image-size"
        ) from error


def _transform(loaded: LoadedModel, data: DatasetPair) -> str:
    transform = loaded.transform
    size = transform.image_size or data.size
    if transform.crop_pct == 1.0 and size == data.size and data.size < 224:
        return f"the images as they are, {size} by {size}"
    return str(dataclasses.replace(transform, image_size=size))


def _measured_on(data: DatasetPair, images: int) -> str:
    """What the numbers are numbers of, and whether the paper's may stand beside them."""
    what = f"the {images} validation images of {data.uri}, {data.num_classes} classes"
    if data.num_classes == IMAGENET_CLASSES and images == IMAGENET_VAL:
        return (
            f"{what}: as many as ImageNet-1K's validation set has; if they are that, the paper's "
            "figures compare"
        )
    return f"{what}. This is not ImageNet-1K: no figure of the paper compares"


def _notes(loaded: LoadedModel, data: DatasetPair) -> list[str]:
    from convnext_study.data.sources.folder import class_order_note

    if loaded.run is None:
        return list(filter(None, [class_order_note(data)]))
    if loaded.class_names is not None or loaded.run.data == data.uri:
        return []
    return [f"trained on {loaded.run.data}: that its classes are these, in this order, is assumed"]
