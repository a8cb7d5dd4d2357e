"""``eval``: evaluate a run, or any network by name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convnext_study.cli.options import (
    MOST_PROCESSES,
    CorruptImages,
    Device,
    ImageSize,
    Json,
    finite,
    print_rich,
)
from convnext_study.errors import UserError
from convnext_study.recipes.recipe import MOST_IMAGES

if TYPE_CHECKING:
    from convnext_study.evaluation.by_task import TaskResult
    from convnext_study.evaluation.evaluate import Accuracy, EvalResult
    from convnext_study.evaluation.load_run import LoadedModel
    from convnext_study.models.pretrained.state_files import Kind
    from convnext_study.runs.metrics import Metric
    from convnext_study.training.runtime import Runtime

LARGE = 1e5  # from here on a number without a unit is written with a prefix


Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code and open the data that the record names.")
]
Code = Annotated[
    Path | None, typer.Option(help="Python file with the builder that the run's record names.")
]


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run's folder, a timm model's name, or torchvision:NAME.")
    ],
    data: Annotated[
        str | None, typer.Option(help="As in training. (default: what the run was trained on)")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="State dict for a model by name: .safetensors or .pth.")
    ] = None,
    eval_weights: Annotated[
        Literal["raw", "ema"] | None,
        typer.Option(help="Of a file with both. (default: ema, the averaged, as timm takes them)"),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Fetch the released weights.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, max=MOST_IMAGES, help="Images at a time.")
    ] = 128,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_PROCESSES,
            help="Processes that read images. (default: one per core, with a GPU)",
        ),
    ] = None,
    image_size: ImageSize = None,
    crop_pct: Annotated[
        float | None,
        typer.Option(min=0.05, max=1, callback=finite, help="Crop over resized side."),
    ] = None,
    device: Device = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile: a minute first, then faster.")
    ] = False,
    corrupt_images: CorruptImages = "stop",
    code: Code = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy on a validation set, with 95 % intervals.

    A run of another task is measured by its own metrics.
    """
    from convnext_study.evaluation.by_task import evaluate_by_task, is_classifier

    loaded = load_model(model, weights, eval_weights, pretrained, code, trust)
    uri = data or data_of(loaded, trust)
    if uri is None:
        raise UserError(f"{model}: on what? Name a data set, as in --data folder:PATH")
    changed = loaded.transform.replace(image_size, crop_pct)
    runtime = replace(_runtime(device, workers, compiled), corrupt_images=corrupt_images)
    if not is_classifier(loaded):
        if image_size or crop_pct:
            option = "--image-size" if image_size else "--crop-pct"
            raise UserError(f"{option}: {model} is measured on images as its task has them")
        with _at_its_place(loaded, named=data is not None):
            by_task = evaluate_by_task(loaded, uri, runtime)
        if as_json:
            typer.echo(json.dumps(by_task.to_dict(), indent=1, ensure_ascii=False))
        else:
            _print_task(by_task)
        return
    with _at_its_place(loaded, named=data is not None):
        result = _evaluate(replace(loaded, transform=changed), uri, batch_size, runtime)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1, ensure_ascii=False))
        return
    _print(result)


def load_model(
    model: str,
    weights: Path | None,
    kind: Kind | None,
    pretrained: bool,
    code: Path | None,
    trust: bool,
) -> LoadedModel:
    """The network that ``model`` names. A folder of that name comes before a model."""
    from convnext_study.evaluation.load_named import load_named
    from convnext_study.evaluation.load_run import load_run

    folder = Path(model)
    if not folder.is_dir():
        if "/" in model:
            raise UserError(f"{model}: no such run folder")
        return load_named(model, weights=weights, pretrained=pretrained, kind=kind)
    if weights or pretrained or kind:
        raise UserError(
            f"{model}: a run has its own weights; leave --weights, --eval-weights and --pretrained"
        )
    return load_run(folder, trust=trust, code=code)


def data_of(loaded: LoadedModel, trust: bool) -> str | None:
    """What the subject's run was trained on. Raises TrustError where its record may not say so."""
    from convnext_study.evaluation.trust import check_data

    if loaded.run is None:
        return None
    if not trust:
        check_data(loaded.run.id, loaded.run.data)
    return loaded.run.data


@contextlib.contextmanager
def _at_its_place(loaded: LoadedModel, *, named: bool) -> Iterator[None]:
    """Errors of data that only the run's record names say how to name it where it is now."""
    from convnext_study.data.dataset import DataError

    try:
        yield
    except DataError as error:
        if named or loaded.run is None:
            raise
        kind = loaded.run.data.partition(":")[0]
        raise DataError(f"{error}; if it was moved, name it: --data {kind}:PATH") from None


def _runtime(device: str | None, workers: int | None, compiled: bool) -> Runtime:
    from convnext_study.launchers.resources import choose_workers, cores, pick_device
    from convnext_study.training.runtime import Runtime

    kind = pick_device(device)
    if workers is None:  # data that lies in memory takes none, whatever is said here
        workers = 0 if kind == "cpu" else choose_workers(cores())
    return Runtime(device=kind, threads=cores(), workers=workers, compile=compiled)


def _evaluate(loaded: LoadedModel, uri: str, batch: int, runtime: Runtime) -> EvalResult:
    import torch

    from convnext_study.data import open_data
    from convnext_study.data.sources import OF_IMAGES
    from convnext_study.evaluation.evaluate import evaluate

    torch.set_num_threads(runtime.threads)
    data = open_data(uri, OF_IMAGES, corrupt_images=runtime.corrupt_images, val_alone=True)
    return evaluate(loaded, data, batch, runtime)


def _print(result: EvalResult) -> None:
    from rich.table import Table

    grid = Table(box=None, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in {
        "model": result.model,
        "weights": result.weights,
        "measured on": result.measured_on,
        "transform": result.transform,
        "precision": result.precision,
        "top-1": _line(result.top1, result.images),
        "top-5": _line(result.top5, result.images) if result.top5 else "five classes or fewer",
        "speed": f"{result.images_per_s:.0f} images/s, reading included",
        "interval": "95 %, Wilson; covers the choice of test images, not another training seed",
        **{f"note {i}": note for i, note in enumerate(result.notes, 1)},
    }.items():
        grid.add_row(name, value)
    print_rich(grid)


def _print_task(result: TaskResult) -> None:
    from rich.table import Table

    grid = Table(box=None, show_header=False)
    rows = {
        "model": result.model,
        "weights": result.weights,
        "measured on": f"the {result.images} validation images of {result.data}",
        **{one.label: _value(one) for one in result.metrics.values()},
        **{f"note {i}": note for i, note in enumerate(result.notes, 1)},
    }
    for name, value in rows.items():
        grid.add_row(name, value)
    print_rich(grid)


def _value(metric: Metric) -> str:
    """As text: large counts, such as MACs, in millions."""
    from convnext_study.report.tables.formatting import with_prefix

    if not metric.unit and metric.value >= LARGE:
        return with_prefix(metric.value)
    return f"{metric.value:.2f} {metric.unit}".strip()


def _line(accuracy: Accuracy, images: int) -> str:
    return (
        f"{accuracy.percent:.2f} %  (95 %: {accuracy.low:.2f} to {accuracy.high:.2f}; "
        f"{accuracy.right} of {images})"
    )
