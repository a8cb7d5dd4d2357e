"""``--dry-run``: the runs of a study, which are done, what the rest will cost; nothing starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from convnext_study.cli.options import StudyOptions, output_of, print_tables
from convnext_study.cli.place import (
    choose_resources_for,
    cluster_of,
    describe,
    get_launcher,
    processes_of,
)
from convnext_study.cli.progress import Progress, progress
from convnext_study.errors import UserError
from convnext_study.experiments.collection import RunCollection, train_all

if TYPE_CHECKING:
    from convnext_study.experiments.dataset_size import DatasetSize
    from convnext_study.experiments.estimate import CostEstimate, Hardware
    from convnext_study.report.tables import Table
    from convnext_study.runs.records import Run

GPU = "a100"  # whose hours are told; `plan` takes others


class PlannedRun(NamedTuple):
    """A run of the study: where it is, and what all of it costs."""

    progress: Progress
    cost: CostEstimate


def dry_run(study: RunCollection, options: StudyOptions) -> None:
    """Print runs, states and costs; with SLURM the batch scripts too, alone on standard output.

    Trains nothing, fetches nothing, writes nothing. Raises UserError for what would fail.
    """
    from convnext_study.experiments.estimate import Hardware, estimate

    output = output_of(options)
    todo = [run for run in study.runs if not study.is_done(run)]
    done = len(study.runs) - len(todo)
    print(f"{study.folder}: {len(study.runs)} runs, {done} done already", file=output)
    cluster = cluster_of(options)
    sizes = {uri: _size(uri, options) for uri in _data(study.runs, options)}
    resources = choose_resources_for(todo, options, cluster) if todo else None
    if resources:
        print(describe(todo, options, resources), file=output)
    for _, note in sizes.values():
        if note:
            print(f"data: {note}", file=output)
    gpus = processes_of(options, cluster, resources.devices if resources else ())
    hardware = Hardware(GPU, gpus, micro_batch_size=options.micro_batch_size)
    datasets = {uri: size for uri, (size, _) in sizes.items()}
    costs = estimate(study.runs, datasets[options.data], hardware, datasets)
    where = progress(study.records(), study.runs)
    rows = [PlannedRun(*pair) for pair in zip(where, costs, strict=True)]
    notes = _notes(rows, datasets.values(), hardware)
    if resources and (seconds := _measured(study, rows, resources.jobs)):
        notes.append(seconds)
    print(file=output)
    print_tables(_table(rows).with_notes(*notes), file=output)
    print("dry run: nothing was trained or written", file=output)
    if cluster and resources:
        train_all(study, resources, lambda: None, get_launcher(options, cluster))


def _data(runs: Sequence[Run], options: StudyOptions) -> list[str]:
    """The study's data, and others that some of its runs are trained on."""
    return list(dict.fromkeys([options.data, *(run.data for run in runs)]))


def _size(uri: str, options: StudyOptions) -> tuple[DatasetSize, str]:
    """What to count with, and what must be said of it, which may be nothing.

    Raises UserError for data that is not here and of which nothing is known.
    """
    from convnext_study.data.dataset import DataError
    from convnext_study.experiments.dataset_size import expected_size

    try:
        return expected_size(uri)
    except DataError as error:
        if not options.download:
            raise
        raise UserError(f"{error}; a dry run fetches nothing, fetch it before") from None


def _table(rows: Sequence[PlannedRun]) -> Table[PlannedRun]:
    from convnext_study.experiments.estimate import HOURS
    from convnext_study.report.tables import Column, Table
    from convnext_study.report.tables.formatting import hours, significant_digits, size

    columns: list[Column[PlannedRun]] = [
        Column("step", "step", lambda row: row.cost.step, "text"),
        Column("seed", "seed", lambda row: row.cost.seed, format=str),
        Column("state", "state", _state, "text"),
        Column("epochs", "epochs", lambda row: row.cost.epochs, format=str),
        Column("images", "images", lambda row: row.cost.images, format=significant_digits),
        Column(
            "flops",
            "FLOPs",
            lambda row: row.cost.flops,
            cell=lambda row: _most(row.cost.is_bound) + significant_digits(row.cost.flops),
        ),
        Column("gpu_seconds", "GPU", lambda row: HOURS * row.cost.gpu_hours, format=hours),
        Column("disk", "disk", lambda row: row.cost.disk, format=size),
    ]
    return Table("dry_run", "", columns, rows)


def _most(is_bound: bool) -> str:
    return "<= " if is_bound else ""


def _state(row: PlannedRun) -> str:
    state, epoch = row.progress.state, row.progress.epoch
    if state == "done" or not epoch:
        return "to do" if state == "waiting" else state
    at = f"epoch {epoch} of {row.progress.epochs}"
    return at if state == "waiting" else f"{state}, {at}"


def _left(row: PlannedRun) -> float:
    """The share of the run that is still to be trained."""
    if row.progress.state == "done":
        return 0.0
    return 1 - row.progress.epoch / (row.progress.epochs or row.cost.epochs)


def _notes(
    rows: Sequence[PlannedRun], sizes: Collection[DatasetSize], hardware: Hardware
) -> list[str]:
    from convnext_study.experiments.estimate import BOUND, GPUS, HOURS, RULE
    from convnext_study.report.tables.formatting import hours, significant_digits
    from convnext_study.report.tables.formatting import size as in_bytes

    flops = sum(_left(row) * row.cost.flops for row in rows)
    gpu = sum(_left(row) * row.cost.gpu_hours for row in rows)
    disk = sum(row.cost.disk for row in rows if row.progress.state != "done")
    bound = any(row.cost.is_bound for row in rows if row.progress.state != "done")
    return [
        f"to do: {_most(bound)}{significant_digits(flops)} FLOPs, {hours(HOURS * gpu)} of GPU, "
        f"{in_bytes(disk)} of disk",
        *(
            (f"{size.uri}: " if len(sizes) > 1 else "")
            + f"{size.train:,} training, {size.val:,} validation images, {size.classes} classes"
            for size in sizes
        ),
        RULE,
        *([BOUND] if any(row.cost.is_bound for row in rows) else []),
        f"GPU time is arithmetic alone, at {hardware.mfu:g} of an {GPUS[hardware.gpu].name}'s "
        "peak; convnext-study plan takes other GPUs",
    ]


def _measured(study: RunCollection, rows: Sequence[PlannedRun], jobs: int) -> str | None:
    """How long the rest takes at the speed of the study's finished runs; None without one."""
    from convnext_study.report.tables.formatting import duration

    seconds = {one.run.id: one.result.seconds for one in study.records() if one.result}
    spent = sum(row.cost.flops for row in rows if row.cost.run in seconds)
    left = [_left(row) * row.cost.flops for row in rows]
    if not spent or not any(left):
        return None
    each = sum(seconds.values()) / spent
    wall = max(each * sum(left) / jobs, each * max(left))
    return (
        f"at the speed of the {len(seconds)} finished here, {jobs} side by side: "
        f"about {duration(wall)}"
    )
