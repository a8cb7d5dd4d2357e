"""``export``: a run's network as files for others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convnext_study.cli.evaluate import CodeOptions, data_of
from convnext_study.cli.options import OTHER, option, with_options
from convnext_study.errors import UserError

if TYPE_CHECKING:
    from convnext_study.evaluation.load_run import LoadedModel


@dataclass(frozen=True)
class ExportOptions(CodeOptions):
    """The options of ``export``."""

    to: str = option(OTHER, "hf (a folder for timm and the hub), safetensors, onnx or pt2.", "hf")
    out: Path | None = option(OTHER, "Folder to write. (default: RUN/export-KIND)")


@with_options
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")], options: ExportOptions
) -> None:
    """Write a run's network with its card, and check that what was written gives its outputs."""
    from convnext_study.evaluation.load_run import load_run
    from convnext_study.export.formats import ANY_NETWORK, FORMATS, export_model
    from convnext_study.export.weights import is_row

    to = options.to
    if to not in FORMATS:
        raise UserError(f"--to {to}: use one of {', '.join(FORMATS)}")
    loaded = load_run(run, trust=options.trust, code=options.code)
    if to not in ANY_NETWORK and not is_row(loaded.net):
        raise UserError(
            f"{run}: a {type(loaded.net).__name__} that is no row of a road map cannot be built "
            f"from {to}; use --to {' or '.join(ANY_NETWORK)}"
        )
    data_of(loaded, options.trust)
    transform, shape = loaded.transform, None
    if not loaded.is_classifier:
        loaded, shape = _of_maps(loaded)
        transform = loaded.transform
    if transform.mean is None or transform.std is None:
        raise UserError(
            f"{run}: the data it was trained on cannot be opened, and with it go the mean and "
            "standard deviation that its images need; put the data back where it was"
        )
    folder = options.out or run / f"export-{to}"
    written = export_model(loaded.net, to, folder, transform, _results(loaded, run), shape)
    print(f"{written.folder}: {', '.join(written.files)}")
    print(
        f"outputs agree: largest difference {written.difference:.2g}, "
        f"of outputs up to {written.largest:.3g}"
    )
    for note in loaded.notes:
        print(f"note: {note}")


def _of_maps(loaded: LoadedModel) -> tuple[LoadedModel, tuple[int, int, int]]:
    """The network of a task with maps for answers, without parts for training alone, with how its
    images are normalised; and the shape of one, of the validation part."""
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
    """What the run's record says of these weights."""
    from convnext_study.report.tables.formatting import with_unit
    from convnext_study.results.metric_spec import spec_of
    from convnext_study.runs import records

    record, asked = records.read(run), loaded.run
    assert asked is not None  # noqa: S101  load_run gives it
    told: dict[str, Any] = {
        "data": asked.data,
        "recipe": f"{asked.recipe['name']}, {asked.recipe['epochs']} epochs",
        "seed": asked.seed,
        "weights": loaded.weights,
    }
    if (result := record.result) is not None:
        metric = spec_of(result.primary, result.metric)
        value = with_unit(result.value, metric)
        told[metric.label] = f"{value} on {result.val_images} test images"
    versions = record.manifest.get("versions", {})
    told["trained with"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return told
