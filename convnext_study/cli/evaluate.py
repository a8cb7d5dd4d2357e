"""``eval`` measures a run, or any network by name; ``export`` writes a run's network to files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convnext_study.cli.options import (
    CORRUPT,
    DEVICE,
    MACHINE,
    OTHER,
    PIXELS,
    OnCorruptImage,
    count,
    finite,
    option,
    print_json,
    print_rich,
    with_options,
)
from convnext_study.errors import UserError
from convnext_study.recipes.recipe import LEAST_PIXELS, MOST_IMAGES, MOST_PIXELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convnext_study.evaluation.evaluate import Accuracy, EvalResult, TaskResult
    from convnext_study.evaluation.load_run import LoadedModel
    from convnext_study.runs.metrics import Metric


LARGE = 1e5  # numbers without a unit are written with a prefix from here on

MODEL, IMAGES = "Model", "Images"


@dataclass(frozen=True)
class CodeOptions:
    """Which code of a run's record may be run."""

    code: Path | None = option(MODEL, "Python file with the builder named in the run's record.")
    trust: bool = option(MODEL, "Run the code and open the data named in the record.", False)


@dataclass(frozen=True)
class EvalOptions(CodeOptions):
    """The options of ``eval``."""

    weights: Path | None = option(
        MODEL, "State dict for a model given by name: .safetensors or .pth."
    )
    eval_weights: Literal["raw", "ema"] | None = option(
        MODEL,
        "Which weights to use from a file with both. (default: ema, the averaged ones, as in timm)",
    )
    pretrained: bool = option(MODEL, "Download the released weights.", False)
    data: str | None = option(IMAGES, "Data set, named as in training. (default: the run's data)")
    image_size: int | None = count(IMAGES, PIXELS, LEAST_PIXELS, MOST_PIXELS)
    crop_pct: float | None = option(
        IMAGES, "Crop size over resized size.", min=0.05, max=1, callback=finite
    )
    corrupt_images: OnCorruptImage = option(IMAGES, CORRUPT, "stop")
    device: str | None = option(MACHINE, DEVICE)
    batch_size: int = option(MACHINE, "Images per batch.", 128, min=1, max=MOST_IMAGES)
    workers: int | None = count(
        MACHINE, "Data-loading processes. (default: one per core, with a GPU)", least=0
    )
    compile: bool = option(
        MACHINE, "Use torch.compile: takes a minute to start, then is faster.", False
    )
    as_json: bool = option(OTHER, "Print JSON, for machines.", False, "--json")


@with_options
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a timm model name, or torchvision:NAME.")
    ],
    options: EvalOptions,
) -> None:
    """Evaluate top-1 and top-5 accuracy on a validation set, with 95 % intervals.

    Runs of other tasks are evaluated with their own metrics.
    """
    from convnext_study.data import open_data
    from convnext_study.data.dataset import DataError
    from convnext_study.data.sources import OF_IMAGES
    from convnext_study.evaluation.evaluate import evaluate as evaluate_images
    from convnext_study.evaluation.evaluate import evaluate_by_task
    from convnext_study.launchers.resources import choose_workers, cores, pick_device
    from convnext_study.training.runtime import Runtime

    loaded = _load_model(model, options)
    uri = options.data or data_of(loaded, options.trust)
    if uri is None:
        raise UserError(f"{model}: no data set given; add one, for example --data folder:PATH")
    device, workers = pick_device(options.device), options.workers
    if workers is None:  # in-memory data ignores it
        workers = 0 if device == "cpu" else choose_workers(cores())
    runtime = Runtime(
        device=device,
        threads=cores(),
        workers=workers,
        compile=options.compile,
        corrupt_images=options.corrupt_images,
    )
    transform = loaded.transform.replace(options.image_size, options.crop_pct)
    classifies = loaded.is_classifier
    if not classifies and (options.image_size or options.crop_pct):
        name = "--image-size" if options.image_size else "--crop-pct"
        raise UserError(
            f"{name}: does not apply to {model}, whose task determines how images are evaluated"
        )
    result: EvalResult | TaskResult
    try:
        if classifies:
            runtime.apply()
            images = open_data(
                uri, OF_IMAGES, corrupt_images=options.corrupt_images, val_alone=True
            )
            changed = replace(loaded, transform=transform)
            result = evaluate_images(changed, images, options.batch_size, runtime)
            facts = _facts(result)
        else:
            result = evaluate_by_task(loaded, uri, runtime)
            facts = _facts_by_task(result)
    except DataError as error:
        if options.data or loaded.run is None:
            raise
        where = f"--data {loaded.run.data.partition(':')[0]}:PATH"
        raise DataError(f"{error}; if the data was moved, pass its new location: {where}") from None
    if options.as_json:
        print_json(result.to_dict())
    else:
        _print(facts, result.notes)


def _load_model(model: str, options: EvalOptions) -> LoadedModel:
    """The network that ``model`` names. A folder of that name has precedence over a model."""
    from convnext_study.evaluation.load_named import load_named
    from convnext_study.evaluation.load_run import load_run

    weights, pretrained, kind = options.weights, options.pretrained, options.eval_weights
    folder = Path(model)
    if not folder.is_dir():
        if "/" in model:
            raise UserError(f"{model}: no such run folder")
        return load_named(model, weights=weights, pretrained=pretrained, kind=kind)
    if weights or pretrained or kind:
        raise UserError(
            f"{model}: a run has its own weights; remove --weights, --eval-weights and --pretrained"
        )
    return load_run(folder, trust=options.trust, code=options.code)


def data_of(loaded: LoadedModel, trust: bool) -> str | None:
    """The URI of a run's training data. Raises TrustError if the record is not trusted for it."""
    from convnext_study.evaluation.trust import check_data

    if loaded.run is None:
        return None
    if not trust:
        check_data(loaded.run.id, loaded.run.data)
    return loaded.run.data


def _facts(result: EvalResult) -> dict[str, str]:
    return {
        "model": result.model,
        "weights": result.weights,
        "measured on": result.measured_on,
        "transform": result.transform,
        "precision": result.precision,
        "top-1": _line(result.top1, result.images),
        "top-5": _line(result.top5, result.images) if result.top5 else "five classes or fewer",
        "speed": f"{result.images_per_s:.0f} images/s, including reading",
        "interval": "95 %, Wilson; for the choice of test images, not for another training seed",
    }


def _line(accuracy: Accuracy, images: int) -> str:
    return (
        f"{accuracy.percent:.2f} %  (95 %: {accuracy.low:.2f} to {accuracy.high:.2f}; "
        f"{accuracy.right} of {images})"
    )


def _facts_by_task(result: TaskResult) -> dict[str, str]:
    return {
        "model": result.model,
        "weights": result.weights,
        "measured on": f"the {result.images} validation images of {result.data}",
        **{metric.label: _value(metric) for metric in result.metrics.values()},
    }


def _value(metric: Metric) -> str:
    """As text; large counts, such as MACs, with a prefix."""
    from convnext_study.report.tables.formatting import with_prefix

    if not metric.unit and metric.value >= LARGE:
        return with_prefix(metric.value)
    return f"{metric.value:.2f} {metric.unit}".strip()


def _print(facts: Mapping[str, str], notes: tuple[str, ...]) -> None:
    from rich.table import Table

    grid = Table(box=None, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in (*facts.items(), *((f"note {i}", note) for i, note in enumerate(notes, 1))):
        grid.add_row(name, text)
    print_rich(grid)


@dataclass(frozen=True)
class ExportOptions(CodeOptions):
    """The options of ``export``."""

    to: str = option(
        OTHER, "Format: hf (a folder for timm and the Hub), safetensors, onnx or pt2.", "hf"
    )
    out: Path | None = option(OTHER, "Output folder. (default: RUN/export-KIND)")


@with_options
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")], options: ExportOptions
) -> None:
    """Write a run's network and its model card, read it back, and compare outputs."""
    from convnext_study.evaluation.load_run import load_run
    from convnext_study.export.formats import ANY_NETWORK, FORMATS, export_model
    from convnext_study.export.weights import is_row

    to = options.to
    if to not in FORMATS:
        raise UserError(f"--to {to}: use one of {', '.join(FORMATS)}")
    loaded = load_run(run, trust=options.trust, code=options.code)
    if to not in ANY_NETWORK and not is_row(loaded.net):
        raise UserError(
            f"{run}: a {type(loaded.net).__name__} is not a row of a road map and cannot be "
            f"rebuilt from {to}; use --to {' or '.join(ANY_NETWORK)}"
        )
    data_of(loaded, options.trust)
    transform, shape = loaded.transform, None
    if not loaded.is_classifier:
        loaded, shape = _of_maps(loaded)
        transform = loaded.transform
    if transform.mean is None or transform.std is None:
        raise UserError(
            f"{run}: the training data cannot be opened, so the normalisation of its images is "
            "unknown; restore the data"
        )
    folder = options.out or run / f"export-{to}"
    written = export_model(loaded.net, to, folder, transform, _results(loaded, run), shape)
    print(f"{written.folder}: {', '.join(written.files)}")
    print(
        f"outputs agree: largest difference {written.difference:.2g}, for outputs up to "
        f"{written.largest:.3g}"
    )
    for note in loaded.notes:
        print(f"note: {note}")


def _of_maps(loaded: LoadedModel) -> tuple[LoadedModel, tuple[int, int, int]]:
    """The network of a task on maps, without parts that only training uses, with the normalisation
    of its images; and the shape of a validation image."""
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.tasks import make_task
    from convnext_study.training.tasks.pose import Pose
    from convnext_study.training.tasks.segmentation import Segmentation

    assert loaded.run is not None  # noqa: S101  load_run gives it
    task = make_task(loaded.run, Runtime())
    assert isinstance(task, Segmentation | Pose)  # noqa: S101  there are no others
    mean, std = task.data.mean, task.data.std
    transform = dataclasses.replace(loaded.transform, mean=mean, std=std)
    net = task.without_training_parts(loaded.net)
    return dataclasses.replace(loaded, net=net, transform=transform), task.image_shape


def _results(loaded: LoadedModel, run: Path) -> dict[str, Any]:
    """What the run's record says about these weights."""
    from convnext_study.report.tables.formatting import with_unit
    from convnext_study.results.metric_spec import spec_of
    from convnext_study.runs import records

    record, run_spec = records.read(run), loaded.run
    assert run_spec is not None  # noqa: S101  load_run gives it
    facts: dict[str, Any] = {
        "data": run_spec.data,
        "recipe": f"{run_spec.recipe['name']}, {run_spec.recipe['epochs']} epochs",
        "seed": run_spec.seed,
        "weights": loaded.weights,
    }
    if (result := record.result) is not None:
        metric = spec_of(result.primary, result.metric)
        value = with_unit(result.value, metric)
        facts[metric.label] = f"{value} on {result.val_images} test images"
    versions = record.manifest.get("versions", {})
    facts["trained with"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return facts
