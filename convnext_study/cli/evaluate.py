"""``eval``: evaluate a run, or any network by name."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convnext_study.cli.options import (
    MACHINE,
    MOST_PROCESSES,
    CorruptImages,
    Device,
    ImageSize,
    Json,
    finite,
    print_json,
    print_rich,
)
from convnext_study.errors import UserError
from convnext_study.recipes.recipe import MOST_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convnext_study.evaluation.evaluate import Accuracy, EvalResult, TaskResult
    from convnext_study.evaluation.load_run import LoadedModel
    from convnext_study.models.pretrained.state_files import Kind
    from convnext_study.runs.metrics import Metric

LARGE = 1e5  # from here on a number without a unit is written with a prefix

_machine: Any = functools.partial(typer.Option, rich_help_panel=MACHINE)
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
    image_size: ImageSize = None,
    crop_pct: Annotated[
        float | None,
        typer.Option(min=0.05, max=1, callback=finite, help="Crop over resized side."),
    ] = None,
    corrupt_images: CorruptImages = "stop",
    code: Code = None,
    trust: Trust = False,
    as_json: Json = False,
    device: Device = None,
    batch_size: Annotated[int, _machine(min=1, max=MOST_IMAGES, help="Images at a time.")] = 128,
    workers: Annotated[
        int | None,
        _machine(
            min=0,
            max=MOST_PROCESSES,
            help="Processes that read images. (default: one per core, with a GPU)",
        ),
    ] = None,
    compiled: Annotated[
        bool, _machine("--compile", help="Use torch.compile: a minute first, then faster.")
    ] = False,
) -> None:
    """Measure top-1 and top-5 accuracy on a validation set, with 95 % intervals.

    A run of another task is measured by its own metrics.
    """
    from convnext_study.data import open_data
    from convnext_study.data.dataset import DataError
    from convnext_study.data.sources import OF_IMAGES
    from convnext_study.evaluation.evaluate import evaluate as evaluate_images
    from convnext_study.evaluation.evaluate import evaluate_by_task
    from convnext_study.launchers.resources import choose_workers, cores, pick_device
    from convnext_study.training.runtime import Runtime

    loaded = _load_model(model, weights, eval_weights, pretrained, code, trust)
    uri = data or data_of(loaded, trust)
    if uri is None:
        raise UserError(f"{model}: on what? Name a data set, as in --data folder:PATH")
    kind = pick_device(device)
    if workers is None:  # data that lies in memory takes none, whatever is said here
        workers = 0 if kind == "cpu" else choose_workers(cores())
    runtime = Runtime(
        device=kind,
        threads=cores(),
        workers=workers,
        compile=compiled,
        corrupt_images=corrupt_images,
    )
    changed = replace(loaded, transform=loaded.transform.replace(image_size, crop_pct))
    classifies = loaded.is_classifier
    if not classifies and (image_size or crop_pct):
        option = "--image-size" if image_size else "--crop-pct"
        raise UserError(f"{option}: {model} is measured on images as its task has them")
    result: EvalResult | TaskResult
    try:
        if classifies:
            runtime.apply()
            images = open_data(uri, OF_IMAGES, corrupt_images=corrupt_images, val_alone=True)
            result = evaluate_images(changed, images, batch_size, runtime)
            facts = _facts(result)
        else:
            result = evaluate_by_task(loaded, uri, runtime)
            facts = _facts_by_task(result)
    except DataError as error:
        if data or loaded.run is None:
            raise
        where = f"--data {loaded.run.data.partition(':')[0]}:PATH"
        raise DataError(f"{error}; if it was moved, name it: {where}") from None
    if as_json:
        print_json(result.to_dict())
    else:
        _print(facts, result.notes)


def _load_model(
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


def _facts(result: EvalResult) -> dict[str, str]:
    return {
        "model": result.model,
        "weights": result.weights,
        "measured on": result.measured_on,
        "transform": result.transform,
        "precision": result.precision,
        "top-1": _line(result.top1, result.images),
        "top-5": _line(result.top5, result.images) if result.top5 else "five classes or fewer",
        "speed": f"{result.images_per_s:.0f} images/s, reading included",
        "interval": "95 %, Wilson; covers the choice of test images, not another training seed",
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
        **{one.label: _value(one) for one in result.metrics.values()},
    }


def _value(metric: Metric) -> str:
    """As text: large counts, such as MACs, in millions."""
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
