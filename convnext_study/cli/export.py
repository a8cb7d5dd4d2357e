"""``export``: a run's network as files for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convnext_study.cli.evaluate import Code, Trust, data_of
from convnext_study.errors import BadRequest

if TYPE_CHECKING:
    from convnext_study.deployment import Meant
    from convnext_study.evaluation.subjects import Subject


def add_to(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    to: Annotated[
        str, typer.Option(help="hf (a folder for timm and the hub), safetensors, onnx or pt2.")
    ] = "hf",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. (default: RUN/export-KIND)")
    ] = None,
    code: Code = None,
    trust: Trust = False,
) -> None:
    """Write a run's network with its card, and check that what was written gives its outputs."""
    from convnext_study.deployment import KINDS, deploy
    from convnext_study.evaluation.subjects import load_run
    from convnext_study.net import RoadmapNet

    if to not in KINDS:
        raise BadRequest(f"--to {to}: use one of {', '.join(KINDS)}")
    subject = load_run(run, trust=trust, code=code)
    if not isinstance(subject.net, RoadmapNet):
        raise BadRequest(
            f"{run}: a {type(subject.net).__name__}, not a network of the road map; export it by "
            "its own means"
        )
    data_of(subject, trust)
    meant = _meant(subject, run)
    folder = out or run / f"export-{to}"
    written = deploy(subject.net, to, folder, meant, _results(subject, run))
    print(f"{written.folder}: {', '.join(written.files)}")
    print(
        f"outputs agree: largest difference {written.difference:.2g}, "
        f"of outputs up to {written.largest:.3g}"
    )
    for note in subject.notes:
        print(f"note: {note}")


def _meant(subject: Subject, run: Path) -> Meant:
    from convnext_study.deployment import Meant

    asked = subject.preparation
    if asked.mean is None or asked.std is None:
        raise BadRequest(
            f"{run}: the data it was trained on cannot be opened, and with it go the mean and "
            "deviation that its images need; put the data back where it was"
        )
    return Meant(asked.image_size, asked.crop_ratio, asked.interpolation, asked.mean, asked.std)


def _results(subject: Subject, run: Path) -> dict[str, Any]:
    """What the run's record says of these weights."""
    from convnext_study import records

    record, asked = records.read(run), subject.run
    assert asked is not None  # noqa: S101  load_run gives it
    told: dict[str, Any] = {
        "data": asked.data,
        "recipe": f"{asked.recipe['name']}, {asked.recipe['epochs']} epochs",
        "seed": asked.seed,
        "weights": subject.weights,
    }
    if record.result is not None:
        told["top-1"] = f"{record.result.top1:.2f} % of {record.result.val_images} images"
    versions = record.asked.get("versions", {})
    told["trained with"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return told
