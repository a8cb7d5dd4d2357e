"""``plan``: what a road map will cost, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from convnext_study.cli.options import (
    Json,
    Regime,
    RunOptions,
    finite,
    print_tables,
    with_options,
)
from convnext_study.roadmap import get_roadmap

if TYPE_CHECKING:
    from convnext_study.experiments.dataset_size import DatasetSize
    from convnext_study.experiments.estimate import CostEstimate, Hardware
    from convnext_study.report.tables import Table


def add_to(app: typer.Typer) -> None:
    """Register `plan` with the command line."""
    app.command()(plan)


@with_options
def plan(
    options: RunOptions,
    regime: Regime = "nano",
    steps: Annotated[
        str | None, typer.Option(help="Only these rows, comma-separated. (default: all)")
    ] = None,
    gpu: Annotated[str, typer.Option(help="Kind of GPU: a100, h100, v100, rtx4090, ...")] = "a100",
    gpus: Annotated[int, typer.Option(min=1, max=1_000_000, help="GPUs that share a run.")] = 1,
    mfu: Annotated[
        float,
        typer.Option(min=0.001, max=1, callback=finite, help="Share of the peak that is reached."),
    ] = 0.1,
    peak_tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1e9,
            callback=finite,
            help="Peak, 1e12 a second, instead of the GPU's.",
        ),
    ] = None,
    train_images: Annotated[
        int | None,
        typer.Option(min=1, max=10**12, help="Training images, instead of counting the files."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell FLOPs, GPU-hours, wall time, disk and batch split, and what will not compare.

    Nothing is trained. Hours are FLOPs over an assumed share of a peak: an estimate within a
    factor of two or so, until `--mfu` is measured on the machine.
    """
    from convnext_study.experiments.caveats import caveats
    from convnext_study.experiments.dataset_size import dataset_size
    from convnext_study.experiments.estimate import Hardware, estimate, to_dict
    from convnext_study.experiments.roadmap_runs import (
        choose_variants,
        parse_seeds,
        roadmap_runs,
    )

    road = get_roadmap(regime)
    hardware = Hardware(gpu, gpus, mfu, peak_tflops, options.micro_batch_size)
    runs = roadmap_runs(
        road,
        choose_variants(road, steps),
        data=options.data,
        seeds=parse_seeds(options.seeds),
        recipe=options.recipe,
        changes=options.recipe_changes(),
    )
    sizes = dataset_size(
        options.data, images=train_images, classes=road.num_classes, image_size=road.image_size
    )
    plans = estimate(runs, sizes, hardware)
    warnings = caveats(road, runs, plans, sizes)
    if as_json:
        told = to_dict(plans, sizes, hardware, warnings)
        typer.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    _print(plans, sizes, hardware, warnings)


def _print(
    plans: Sequence[CostEstimate], dataset: DatasetSize, hardware: Hardware, warnings: Sequence[str]
) -> None:
    from convnext_study.experiments.estimate import GPUS, HOURS, RULE, total
    from convnext_study.report.tables.formatting import hours, significant_digits, size

    sums = total(plans)
    peaks = "/".join(sorted({f"{plan.peak_tflops:g}" for plan in plans}))
    name = GPUS[hardware.gpu].name if hardware.gpu in GPUS else hardware.gpu
    heading = [
        f"{dataset.uri}: {dataset.train:,} training, {dataset.val:,} validation images, "
        f"{dataset.classes} classes",
        f"{hardware.gpus} x {name}: peak {peaks} TFLOP/s, assumed utilisation "
        f"{hardware.mfu:g} (set both with --peak-tflops, --mfu)",
        RULE,
        "hours are arithmetic alone: reading images and starting kernels are not in them",
    ]
    print("\n".join(heading) + "\n")
    total_flops = sums["train_flops"] + sums["eval_flops"]
    ending = (
        f"total: {sums['runs']} runs, {significant_digits(sums['images'])} images, "
        f"{significant_digits(total_flops)} FLOPs, {hours(HOURS * sums['gpu_hours'])} of GPU, "
        f"{hours(HOURS * sums['wall_hours'])} of wall time, {size(sums['disk'])} of disk"
    )
    print_tables(_table(plans).with_notes(ending, *(f"warning: {text}" for text in warnings)))


def _table(plans: Sequence[CostEstimate]) -> Table[CostEstimate]:
    from convnext_study.experiments.estimate import HOURS
    from convnext_study.report.tables import Column, Table
    from convnext_study.report.tables.formatting import hours, significant_digits, size

    columns: list[Column[CostEstimate]] = [
        Column("step", "step", lambda plan: plan.step, "text"),
        Column("seed", "seed", lambda plan: plan.seed, format=str),
        Column("epochs", "epochs", lambda plan: plan.epochs, format=str),
        Column("images", "images", lambda plan: plan.images, format=significant_digits),
        Column("flops", "FLOPs", lambda plan: plan.flops, format=significant_digits),
        Column("gpu_seconds", "GPU", lambda plan: HOURS * plan.gpu_hours, format=hours),
        Column("wall_seconds", "wall", lambda plan: HOURS * plan.wall_hours, format=hours),
        Column("disk", "disk", lambda plan: plan.disk, format=size),
        Column("batch", "batch split", lambda plan: plan.global_batch_size, cell=_split),
    ]
    return Table("plan", "", columns, plans)


def _split(plan: CostEstimate) -> str:
    """Global batch = devices x accumulation x micro batch."""
    devices = plan.global_batch_size // plan.batch_per_device
    return f"{plan.global_batch_size} = {devices} x {plan.accum_steps} x {plan.micro_batch_size}"
