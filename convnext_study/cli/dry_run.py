"""``--dry-run``: the runs of a study, which are done, and what the rest will cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from convnext_study.cli.options import StudyOptions, output_of, print_json, print_tables
from convnext_study.experiments.progress import Progress, progress

if TYPE_CHECKING:
    from convnext_study.data.sources import DatasetSize
    from convnext_study.experiments.estimate import Cheaper, CostEstimate, Gpu, Hardware
    from convnext_study.experiments.plan import RunCollection
    from convnext_study.launchers.resources import Resources
    from convnext_study.report.tables import Table

SUMS = ("images", "flops", "gpu_hours", "disk")


class PlannedRun(NamedTuple):
    """A run of the study: its progress, and its total cost."""

    progress: Progress
    cost: CostEstimate

    @property
    def state(self) -> str:
        """The state in a few words."""
        state, epoch = self.progress.state, self.progress.epoch
        if state == "done" or not epoch:
            return "to do" if state == "waiting" else state
        at = f"at epoch {epoch} of {self.progress.epochs}"
        return at if state == "waiting" else f"{state}, {at}"

    @property
    def left(self) -> float:
        """The share that is still to be trained."""
        if self.progress.state == "done":
            return 0.0
        return 1 - self.progress.epoch / (self.progress.epochs or self.cost.epochs)


class PlanRow(NamedTuple):
    """A step's runs, all runs of the study (``total``), or what is left to train (``left``)."""

    step: str
    runs: Sequence[PlannedRun]
    kind: Literal["step", "total", "left"] = "step"

    def sum(self, name: str) -> float:
        """The sum of one of `SUMS` over the runs. A run that has begun needs no further disk."""
        shares = [run.left if self.kind == "left" else 1 for run in self.runs]
        if name == "disk":
            shares = [share == 1 for share in shares]
        costs: list[float] = [getattr(run.cost, name) for run in self.runs]
        return sum(share * cost for share, cost in zip(shares, costs, strict=True))

    @property
    def state(self) -> str:
        """The runs' common state, or how many are in each."""
        count = Counter(run.state for run in self.runs)
        return ", ".join(f"{n} {state}" if len(count) > 1 else state for state, n in count.items())

    @property
    def is_bound(self) -> bool:
        """Whether a counted run may cost less."""
        return any(run.cost.is_bound for run in self.runs if run.left or self.kind != "left")

    def largest(self, name: str) -> float | None:
        """The largest value of a cost field over a step's runs; None if it is not known."""
        values = [getattr(run.cost, name) for run in self.runs if self.kind == "step"]
        return max((value for value in values if value is not None), default=None)

    @property
    def fit(self) -> str:
        """How many images of a step's largest run fit on a GPU at a time."""
        costs = [run.cost for run in self.runs if run.cost.images_that_fit is not None]
        if self.kind != "step" or not costs:
            return ""
        largest = min(costs, key=lambda cost: cost.images_that_fit or 0)
        count = largest.images_that_fit or 0
        return "all" if count >= largest.batch_per_device else str(count)

    def of_step(self, name: str) -> str:
        """The distinct values of a cost field over a step's runs."""
        values = {getattr(run.cost, name) for run in self.runs} if self.kind == "step" else ()
        return "/".join(map(str, sorted(values)))


def print_estimate(
    study: RunCollection, options: StudyOptions, gpus: int, resources: Resources | None
) -> None:
    """Print steps, states and costs; ``gpus`` share each run, ``resources`` are for the runs that
    are left to train.

    Trains, downloads and writes nothing. Raises UserError for what would fail.
    """
    from convnext_study.experiments.caveats import caveats
    from convnext_study.experiments.data_identity import expected_size
    from convnext_study.experiments.estimate import DEFAULT_GPU, Hardware, cheaper, estimate
    from convnext_study.runs.records import CAVEAT

    output = output_of(options)
    sizes: dict[str, DatasetSize] = {}
    for uri in dict.fromkeys(run.data for run in study.runs):
        sizes[uri], note = expected_size(uri)
        if note:
            print(f"data: {note}", file=output)
    gpu = options.gpu or DEFAULT_GPU
    hardware = Hardware(gpu, gpus, options.mfu, options.micro_batch_size, options.tf32)
    costs = estimate(study.runs, sizes, hardware)
    states = progress(study.records(), study.runs)
    runs = [PlannedRun(*pair) for pair in zip(states, costs, strict=True)]
    warnings = caveats(study.runs, costs, sizes)
    facts = [str(run.metadata[CAVEAT]) for run in study.runs if run.metadata.get(CAVEAT)]
    facts = list(dict.fromkeys(facts))
    recipes = cheaper(study.runs, sizes, hardware)
    if options.as_json:
        plan = _to_dict(runs, sizes, hardware, [*warnings, *facts])
        print_json({**plan, "recipes": [dataclasses.asdict(choice) for choice in recipes]})
    else:
        measured = resources is not None and resources.runtime.device == "cpu" and not options.gpu
        notes = _notes(study, runs, sizes, hardware, resources, measured)
        notes += [*(f"warning: {text}" for text in warnings), *facts]
        print(file=output)
        print_tables(_table(runs).with_notes(*notes), file=output)
        if recipes:
            print(file=output)
            print_tables(_cheaper_table(recipes), file=output)
    print("dry run: nothing was trained or written", file=output)


def _totals(runs: Sequence[PlannedRun]) -> list[PlanRow]:
    """All runs, and what is left if some have begun."""
    left = [run for run in runs if run.left]
    any_begun = any(run.left < 1 for run in runs)
    total = PlanRow("total", runs, "total")
    return [total, PlanRow("left", left, "left")] if any_begun else [total]


def _table(runs: Sequence[PlannedRun]) -> Table[PlanRow]:
    from convnext_study.experiments.estimate import HOURS
    from convnext_study.report.tables import Column, Table
    from convnext_study.report.tables.formatting import hours, significant_digits, size

    steps: dict[str, list[PlannedRun]] = {}
    for run in runs:
        steps.setdefault(run.cost.step, []).append(run)
    columns: list[Column[PlanRow]] = [
        Column("step", "step", lambda row: row.step, "text"),
        Column("runs", "runs", lambda row: len(row.runs), format=str),
        Column("state", "state", lambda row: row.state, "text"),
        Column("epochs", "epochs", lambda row: row.of_step("epochs")),
        Column("batch", "batch split", lambda row: row.of_step("batch_split")),
        Column("image", "image", lambda row: row.largest("image_bytes"), format=size),
        Column("fit", "fit", lambda row: row.fit),
        Column("images", "images", lambda row: row.sum("images"), format=significant_digits),
        Column(
            "flops",
            "FLOPs",
            lambda row: row.sum("flops"),
            cell=lambda row: ("<= " if row.is_bound else "") + significant_digits(row.sum("flops")),
        ),
        Column("gpu", "GPU", lambda row: HOURS * row.sum("gpu_hours"), format=hours),
        Column("disk", "disk", lambda row: row.sum("disk"), format=size),
    ]
    rows = [PlanRow(*step) for step in steps.items()]
    return Table("dry_run", "", columns, [*rows, *_totals(runs)])


def _cheaper_table(rows: Sequence[Cheaper]) -> Table[Cheaper]:
    """The time of the same rows and seeds with recipes for less compute."""
    from convnext_study.experiments.estimate import HOURS
    from convnext_study.report.tables import Column, Table
    from convnext_study.report.tables.formatting import hours

    columns: list[Column[Cheaper]] = [
        Column("recipe", "--recipe", lambda row: row.recipe, "text"),
        Column("share", "of the cost", lambda row: row.share, format=lambda share: f"{share:.1%}"),
    ]
    for gpu in rows[0].hours:
        for index, count in enumerate((1, 8)):
            columns.append(
                Column(
                    f"{gpu}_{count}",
                    f"{count} x {gpu}",
                    lambda row, gpu=gpu, index=index: HOURS * row.hours[gpu][index],  # type: ignore[misc]
                    format=hours,
                )
            )
    return Table("recipes", "", columns, rows).with_notes(
        *(f"{row.recipe}: {row.source}" for row in rows)
    )


def _notes(
    study: RunCollection,
    runs: Sequence[PlannedRun],
    sizes: Mapping[str, DatasetSize],
    hardware: Hardware,
    resources: Resources | None,
    measured: bool,
) -> list[str]:
    """What the table counts, and how long the rest takes: on GPUs or as ``measured`` here, and at
    the speed of the study's finished runs."""
    from convnext_study.experiments.estimate import BOUND, GPUS, HOURS, RULE
    from convnext_study.experiments.measure import seconds_per_run
    from convnext_study.report.tables.formatting import duration, plural

    def wall(seconds: Sequence[float], jobs: int) -> str:
        time = duration(max(sum(seconds) / jobs, *seconds))
        return f"about {time}, {plural(jobs, 'run')} at a time"

    notes = [
        (f"{uri}: " if len(sizes) > 1 else "")
        + f"{size.train:,} training, {size.val:,} validation images, {size.classes} classes"
        for uri, size in sizes.items()
    ]
    gpu = GPUS[hardware.gpu]
    peaks = "/".join(sorted({f"{run.cost.mfu:g} of {run.cost.peak_tflops:g}" for run in runs}))
    notes += [RULE, *([BOUND] if any(run.cost.is_bound for run in runs) else [])]
    notes.append(
        f"GPU time counts arithmetic only, at {peaks} TFLOP/s peak of an {gpu.name}; set both "
        "with --gpu and --mfu"
    )
    if files := [run.cost for run in runs if run.cost.cores is not None]:
        slowest = max(files, key=lambda cost: cost.cores or 0)
        notes.append(
            f"reading {slowest.images_per_second:.0f} images/s per GPU ({slowest.step}) takes "
            f"{slowest.cores:.1f} cores; with fewer, the GPUs wait"
        )
    notes += _memory_notes(runs, gpu)
    if resources is None:
        return notes
    if measured:
        cpu_seconds = seconds_per_run(
            study.runs,
            [run.cost for run in runs],
            max(size.classes for size in sizes.values()),
            resources.runtime.threads,
        )
        left = [run.left * rate for run, rate in zip(runs, cpu_seconds or (), strict=False)]
        if left:
            notes.append(
                f"remaining time on this CPU, from a few timed steps: {wall(left, resources.jobs)}"
            )
    else:
        hours = [HOURS * run.left * run.cost.wall_hours for run in runs]
        per_run = plural(hardware.gpus, "GPU")
        notes.append(f"remaining time on {per_run} per run: {wall(hours, resources.jobs)}")
    seconds = {record.run.id: record.result.seconds for record in study.records() if record.result}
    if spent := sum(run.cost.flops for run in runs if run.cost.run in seconds):
        rate = sum(seconds.values()) / spent
        left = [rate * run.left * run.cost.flops for run in runs]
        speed = f"remaining time at the speed of the {len(seconds)} finished runs"
        notes.append(f"{speed}: {wall(left, resources.jobs)}")
    return notes


def _memory_notes(runs: Sequence[PlannedRun], gpu: Gpu) -> list[str]:
    """What the columns about memory mean, and which rows do not fit."""
    from convnext_study.experiments.estimate import USABLE
    from convnext_study.report.tables.formatting import plural, size

    runs = [run for run in runs if run.cost.memory is not None]
    if not runs:
        return []
    notes = [
        "image: memory that a training step keeps per image; fit: images at a time in "
        f"{USABLE:.0%} of the {gpu.memory} GB of an {gpu.name}, beside weights, gradients and "
        "moments"
    ]
    costs = [run.cost for run in runs]
    over = [cost for cost in costs if (cost.images_that_fit or 0) < cost.micro_batch_size]
    if over:
        worst = max(over, key=lambda cost: cost.memory or 0)
        rows = plural(len({cost.step for cost in over}), "row")
        notes.append(
            f"warning: {rows} do not fit: {worst.step} needs {size(worst.memory or 0)} for "
            f"{worst.micro_batch_size} images at a time; use --micro-batch-size "
            f"{worst.images_that_fit}, --grad-checkpointing, or --precision bf16"
        )
    return notes


def _to_dict(
    runs: Sequence[PlannedRun],
    sizes: Mapping[str, DatasetSize],
    hardware: Hardware,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The whole plan in JSON values."""
    from convnext_study.experiments.estimate import RULE

    return {
        "rule": RULE,
        "data": [{"uri": uri, **size._asdict()} for uri, size in sizes.items()],
        "hardware": dataclasses.asdict(hardware),
        "runs": [
            {**dataclasses.asdict(run.cost), "state": run.state, "left": run.left} for run in runs
        ],
        **{row.step: {name: row.sum(name) for name in SUMS} for row in _totals(runs)},
        "warnings": warnings,
    }
