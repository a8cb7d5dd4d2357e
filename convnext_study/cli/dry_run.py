"""``--dry-run``: the runs of a study, which are done, what the rest will cost; nothing starts."""

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
    """A run of the study: where it is, and what all of it costs."""

    progress: Progress
    cost: CostEstimate

    @property
    def state(self) -> str:
        """In a word or two."""
        state, epoch = self.progress.state, self.progress.epoch
        if state == "done" or not epoch:
            return "to do" if state == "waiting" else state
        at = f"at epoch {epoch} of {self.progress.epochs}"
        return at if state == "waiting" else f"{state}, {at}"

    @property
    def left(self) -> float:
        """The share of it that is still to be trained."""
        if self.progress.state == "done":
            return 0.0
        return 1 - self.progress.epoch / (self.progress.epochs or self.cost.epochs)


class PlanRow(NamedTuple):
    """A step's runs, all of the study's (``total``), or what of them is still to be trained
    (``left``)."""

    step: str
    runs: Sequence[PlannedRun]
    kind: Literal["step", "total", "left"] = "step"

    def sum(self, name: str) -> float:
        """One of `SUMS` over the runs. The disk of a run that has begun is taken."""
        shares = [run.left if self.kind == "left" else 1 for run in self.runs]
        if name == "disk":
            shares = [share == 1 for share in shares]
        costs: list[float] = [getattr(run.cost, name) for run in self.runs]
        return sum(share * cost for share, cost in zip(shares, costs, strict=True))

    @property
    def state(self) -> str:
        """That of all, or how many are in each."""
        count = Counter(run.state for run in self.runs)
        return ", ".join(f"{n} {state}" if len(count) > 1 else state for state, n in count.items())

    @property
    def is_bound(self) -> bool:
        """Whether a run that counts may cost less."""
        return any(run.cost.is_bound for run in self.runs if run.left or self.kind != "left")

    def largest(self, name: str) -> float | None:
        """Of a step's runs the largest of a field of their costs; None where it is not known."""
        values = [getattr(run.cost, name) for run in self.runs if self.kind == "step"]
        return max((value for value in values if value is not None), default=None)

    @property
    def fit(self) -> str:
        """How many images a GPU holds at a time, of a step's largest run."""
        costs = [run.cost for run in self.runs if run.cost.images_that_fit is not None]
        if self.kind != "step" or not costs:
            return ""
        least = min(costs, key=lambda cost: cost.images_that_fit or 0)
        count = least.images_that_fit or 0
        return "all" if count >= least.batch_per_device else str(count)

    def of_step(self, name: str) -> str:
        """A field of the costs of a step's runs, each value once."""
        values = {getattr(run.cost, name) for run in self.runs} if self.kind == "step" else ()
        return "/".join(map(str, sorted(values)))


def print_estimate(
    study: RunCollection, options: StudyOptions, gpus: int, resources: Resources | None
) -> None:
    """Print steps, states and costs, where ``gpus`` share each run; ``resources`` are for those
    that are to be trained.

    Trains nothing, fetches nothing, writes nothing. Raises UserError for what would fail.
    """
    from convnext_study.experiments.caveats import caveats
    from convnext_study.experiments.data_identity import expected_size
    from convnext_study.experiments.estimate import USUAL, Hardware, cheaper, estimate
    from convnext_study.runs.records import CAVEAT

    output = output_of(options)
    sizes: dict[str, DatasetSize] = {}
    for uri in dict.fromkeys(run.data for run in study.runs):
        sizes[uri], note = expected_size(uri)
        if note:
            print(f"data: {note}", file=output)
    gpu = options.gpu or USUAL
    hardware = Hardware(gpu, gpus, options.mfu, options.micro_batch_size, options.tf32)
    costs = estimate(study.runs, sizes, hardware)
    where = progress(study.records(), study.runs)
    runs = [PlannedRun(*pair) for pair in zip(where, costs, strict=True)]
    warnings = caveats(study.runs, costs, sizes)
    facts = [str(run.metadata[CAVEAT]) for run in study.runs if run.metadata.get(CAVEAT)]
    facts = list(dict.fromkeys(facts))
    others = cheaper(study.runs, sizes, hardware)
    if options.as_json:
        plan = _to_dict(runs, sizes, hardware, [*warnings, *facts])
        print_json({**plan, "recipes": [dataclasses.asdict(one) for one in others]})
    else:
        measured = resources is not None and resources.runtime.device == "cpu" and not options.gpu
        notes = _notes(study, runs, sizes, hardware, resources, measured)
        notes += [*(f"warning: {text}" for text in warnings), *facts]
        print(file=output)
        print_tables(_table(runs).with_notes(*notes), file=output)
        if others:
            print(file=output)
            print_tables(_cheaper_table(others), file=output)
    print("dry run: nothing was trained or written", file=output)


def _totals(runs: Sequence[PlannedRun]) -> list[PlanRow]:
    """All runs, and where some of them have begun what is left."""
    left = [run for run in runs if run.left]
    begun = any(run.left < 1 for run in runs)
    return [PlanRow("total", runs, "total"), *([PlanRow("left", left, "left")] if begun else [])]


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
    """What the same rows and seeds take by recipes for less compute."""
    from convnext_study.experiments.estimate import HOURS
    from convnext_study.report.tables import Column, Table
    from convnext_study.report.tables.formatting import hours

    columns: list[Column[Cheaper]] = [
        Column("recipe", "--recipe", lambda row: row.recipe, "text"),
        Column("share", "of the cost", lambda row: row.share, format=lambda share: f"{share:.1%}"),
    ]
    for gpu in rows[0].hours:
        for place, count in enumerate((1, 8)):
            columns.append(
                Column(
                    f"{gpu}_{count}",
                    f"{count} x {gpu}",
                    lambda row, gpu=gpu, place=place: HOURS * row.hours[gpu][place],  # type: ignore[misc]
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
    """What the table is of, and how long the rest takes: on GPUs or as ``measured`` here, and at
    the speed of the study's finished runs."""
    from convnext_study.experiments.estimate import BOUND, GPUS, HOURS, RULE
    from convnext_study.experiments.measure import seconds_per_run
    from convnext_study.report.tables.formatting import duration, plural

    def wall(seconds: Sequence[float], jobs: int) -> str:
        time = duration(max(sum(seconds) / jobs, *seconds))
        return f"about {time}, {plural(jobs, 'run')} at a time"

    found = [
        (f"{uri}: " if len(sizes) > 1 else "")
        + f"{size.train:,} training, {size.val:,} validation images, {size.classes} classes"
        for uri, size in sizes.items()
    ]
    gpu = GPUS[hardware.gpu]
    peaks = "/".join(sorted({f"{run.cost.mfu:g} of {run.cost.peak_tflops:g}" for run in runs}))
    found += [RULE, *([BOUND] if any(run.cost.is_bound for run in runs) else [])]
    found.append(
        f"time on GPUs is arithmetic alone, at {peaks} TFLOP/s that an {gpu.name} has at its peak; "
        "set both with --gpu and --mfu"
    )
    if files := [run.cost for run in runs if run.cost.cores is not None]:
        most = max(files, key=lambda cost: cost.cores or 0)
        found.append(
            f"reading {most.images_per_second:.0f} images/s for each GPU ({most.step}) takes "
            f"{most.cores:.1f} cores: with fewer the GPUs wait"
        )
    found += _memory_notes(runs, gpu)
    if resources is None:
        return found
    if measured:
        here = seconds_per_run(
            study.runs,
            [run.cost for run in runs],
            max(size.classes for size in sizes.values()),
            resources.runtime.threads,
        )
        left = [run.left * each for run, each in zip(runs, here or (), strict=False)]
        if left:
            found.append(f"what is left on this CPU, by a few steps: {wall(left, resources.jobs)}")
    else:
        hours = [HOURS * run.left * run.cost.wall_hours for run in runs]
        per_run = plural(hardware.gpus, "GPU")
        found.append(f"what is left on {per_run} per run: {wall(hours, resources.jobs)}")
    seconds = {one.run.id: one.result.seconds for one in study.records() if one.result}
    if spent := sum(run.cost.flops for run in runs if run.cost.run in seconds):
        each = sum(seconds.values()) / spent
        left = [each * run.left * run.cost.flops for run in runs]
        speed = f"at the speed of the {len(seconds)} finished here"
        found.append(f"{speed}: {wall(left, resources.jobs)}")
    return found


def _memory_notes(runs: Sequence[PlannedRun], gpu: Gpu) -> list[str]:
    """What the columns of memory mean, and which rows do not fit."""
    from convnext_study.experiments.estimate import USABLE
    from convnext_study.report.tables.formatting import plural, size

    runs = [run for run in runs if run.cost.memory is not None]
    if not runs:
        return []
    found = [
        f"image: what a training step keeps of one; fit: images at a time in {USABLE:.0%} of "
        f"the {gpu.memory} GB of an {gpu.name}, beside weights, gradients and moments"
    ]
    over = [run.cost for run in runs if (run.cost.images_that_fit or 0) < run.cost.micro_batch_size]
    if over:
        worst = max(over, key=lambda cost: cost.memory or 0)
        rows = plural(len({cost.step for cost in over}), "row")
        found.append(
            f"warning: {rows} do not fit: {worst.step} needs {size(worst.memory or 0)} for "
            f"{worst.micro_batch_size} images at a time; use --micro-batch-size "
            f"{worst.images_that_fit}, --grad-checkpointing, or --precision bf16"
        )
    return found


def _to_dict(
    runs: Sequence[PlannedRun],
    sizes: Mapping[str, DatasetSize],
    hardware: Hardware,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The whole plan in plain values."""
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
