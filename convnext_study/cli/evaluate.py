"""``eval``: judge a run or any network by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import ImageSize, Json, print_rich
from convnext_study.errors import BadRequest

if TYPE_CHECKING:
    from convnext_study.evaluation.judging import Accuracy, Verdict
    from convnext_study.evaluation.subjects import Subject
    from convnext_study.training.task import Machine


def add_to(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


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
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Fetch the released weights.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 128,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images. (default: a core each, with a GPU)"),
    ] = None,
    image_size: ImageSize = None,
    crop_ratio: Annotated[
        float | None, typer.Option(min=0.05, max=1, help="Crop over resized side.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps. (default: the best there is)")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile: a minute first, then faster.")
    ] = False,
    code: Code = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy on a validation set, with 95 % intervals."""
    subject = find_subject(model, weights, pretrained, code, trust)
    uri = data or data_of(subject, trust)
    if uri is None:
        raise BadRequest(f"{model}: on what? Name a data set, as in --data folder:PATH")
    changed = subject.preparation.changed(image_size, crop_ratio)
    machine = _machine(device, workers, compiled)
    verdict = _judge(replace(subject, preparation=changed), uri, batch, machine)
    if as_json:
        typer.echo(json.dumps(verdict.to_dict(), indent=1, ensure_ascii=False))
        return
    _print(verdict)


def find_subject(
    model: str, weights: Path | None, pretrained: bool, code: Path | None, trust: bool
) -> Subject:
    """The network that ``model`` names. A folder of that name comes before a model."""
    from convnext_study.evaluation.named import load_named
    from convnext_study.evaluation.subjects import load_run

    folder = Path(model)
    if not folder.is_dir():
        if "/" in model:
            raise BadRequest(f"{model}: no such run folder")
        return load_named(model, weights=weights, pretrained=pretrained)
    if weights or pretrained:
        raise BadRequest(f"{model}: a run has its own weights; leave --weights and --pretrained")
    return load_run(folder, trust=trust, code=code)


def data_of(subject: Subject, trust: bool) -> str | None:
    """What the subject's run was trained on. Raises TrustError where its record may not say so."""
    from convnext_study.evaluation.trust import check_data

    if subject.run is None:
        return None
    if not trust:
        check_data(subject.run.id, subject.run.data)
    return subject.run.data


def _machine(device: str | None, workers: int | None, compiled: bool) -> Machine:
    from convnext_study.launching.machine import choose_workers, cores, pick_device
    from convnext_study.training.task import Machine

    kind = pick_device(device)
    if workers is None:  # data that lies in memory takes none, whatever is said here
        workers = 0 if kind == "cpu" else choose_workers(cores())
    return Machine(device=kind, threads=cores(), workers=workers, compile=compiled)


def _judge(subject: Subject, uri: str, batch: int, machine: Machine) -> Verdict:
    import torch

    from convnext_study.evaluation.judging import judge
    from convnext_study.training.data import open_data

    torch.set_num_threads(machine.threads)
    return judge(subject, open_data(uri), batch, machine)


def _print(verdict: Verdict) -> None:
    from rich.table import Table

    grid = Table(box=None, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in {
        "model": verdict.model,
        "weights": verdict.weights,
        "measured on": verdict.measured_on,
        "transform": verdict.transform,
        "precision": verdict.precision,
        "top-1": _line(verdict.top1, verdict.images),
        "top-5": _line(verdict.top5, verdict.images) if verdict.top5 else "five classes or fewer",
        "speed": f"{verdict.images_per_s:.0f} images/s, reading included",
        "interval": "95 %, Wilson; covers the choice of test images, not another training seed",
        **{f"note {i}": note for i, note in enumerate(verdict.notes, 1)},
    }.items():
        grid.add_row(name, value)
    print_rich(grid)


def _line(accuracy: Accuracy, images: int) -> str:
    return (
        f"{accuracy.percent:.2f} %  (95 %: {accuracy.low:.2f} to {accuracy.high:.2f}; "
        f"{accuracy.right} of {images})"
    )
