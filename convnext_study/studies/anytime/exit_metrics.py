"""The study's finished runs by arm, their metrics exit by exit, and the table of all exits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeAlias

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import digits, level_interval, mean_std
from convnext_study.results.per_sample import image_noise
from convnext_study.results.subset_results import results_of
from convnext_study.runs.records import Record, Result

Arms: TypeAlias = Mapping[str, Sequence[Record]]
COMPARED = "compared"  # the metric that a comparison is about


def by_arm(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """The finished runs of each backbone by arm, in the order of the records."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.result is not None:
            about = record.run.metadata
            arms = found.setdefault(str(about["backbone"]), {})
            arms.setdefault(str(about["row"]), []).append(record)
    return found


def result_of(record: Record) -> Result:
    """The result of a finished run."""
    assert record.result is not None  # noqa: S101  by_arm keeps no others
    return record.result


def exits_of(records: Sequence[Record]) -> int:
    """How many exits answer in an arm."""
    return sum(name.startswith("macs_exit") for name in result_of(records[0]).metrics)


def at_exit(name: str, records: Sequence[Record], exit: int) -> str:
    """The metric ``miou`` or ``macs`` at an exit from 1; at 0 the mean of all, at -1 the last."""
    exits = exits_of(records)
    if exit == 0 or (name == "miou" and exits == 1):
        return name
    return f"{name}_exit{exits if exit == -1 else exit}"


def with_primary(records: Sequence[Record], exit: int) -> list[Record]:
    """The same records with mIoU at an exit as the primary metric, so that arms can be compared.

    ``exit`` is as for `at_exit`; the metric has one name for all arms.
    """
    found, metric = [], at_exit("miou", records, exit)
    for record in records:
        result = result_of(record)
        compared = result.metrics[metric].model_copy(update={"label": "mIoU"})
        update = {"metrics": {**result.metrics, COMPARED: compared}, "primary": COMPARED}
        found.append(record.model_copy(update={"result": result.model_copy(update=update)}))
    return found


def image_interval(records: Sequence[Record]) -> tuple[float, float] | None:
    """The interval of 95 % of the primary metric for the choice of test images."""
    noise = image_noise(results_of(records)).interval
    return None if noise is None else (noise.low, noise.high)


@dataclass(frozen=True)
class ExitPoint:
    """An arm at one of its exits, from 1, over its seeds.

    ``miou`` is the mean over seeds, in percent, as ``computed``, the share of positions, and
    ``ece``, the expected calibration error; ``interval`` of 95 % is for the choice of test images.
    Multiply-accumulates are ``dense``, where nothing is skipped, and ``macs`` at the masks of the
    validation images; ``milliseconds`` of one core.
    """

    arm: str
    label: str
    exit: int
    exits: int
    miou: float
    std: float | None
    interval: tuple[float, float] | None
    dense: int
    macs: float
    computed: float
    ece: float
    milliseconds: float | None = None


def exit_points(arms: Arms, times: Mapping[str, Sequence[float]]) -> list[ExitPoint]:
    """Every exit of every arm; ``times`` are milliseconds to each exit, by arm."""
    return [
        _point(arm, records, exit, times.get(arm, ()))
        for arm, records in arms.items()
        for exit in range(1, exits_of(records) + 1)
    ]


COLUMNS: list[Column[ExitPoint]] = [
    Column("arm", "arm", lambda one: one.arm, "text", screen=False),
    Column("label", "arm", lambda one: one.label, "text"),
    Column("exit", "exit", lambda one: one.exit, format=str),
    Column("miou", "mIoU %", lambda one: one.miou, cell=lambda one: mean_std(one.miou, one.std)),
    Column("std", "std", lambda one: one.std, screen=False),
    Column("ci", "95 %, images", lambda one: one.interval, "interval", format=level_interval),
    Column("dense", "MACs, dense", lambda one: one.dense, prefixed=True),
    Column("macs", "at masks", lambda one: one.macs, prefixed=True),
    Column("computed", "computed %", lambda one: one.computed, format=digits(1)),
    Column("ece", "ECE %", lambda one: one.ece),
    Column("milliseconds", "ms", lambda one: one.milliseconds),
]
NOTES = (
    "MACs: of one image up to the exit, with the heads before it; at masks: the authors' rule, a "
    "mean over the validation images. ECE: expected calibration error of 15 bins. Intervals: "
    "bootstrap over images of the mean over seeds.",
    "ms: up to the exit, of one core, one image at a time, median of the first images; the first "
    "seed's network in the fastest form that its masks allow.",
)


def exits_table(points: Sequence[ExitPoint], backbone: str, end: str = "") -> Table[ExitPoint]:
    """Accuracy, cost and calibration of every exit of every arm."""
    title = f"Every exit of every arm: {backbone}"
    return Table(f"anytime_exits{end}", title, COLUMNS, points, NOTES)


def _point(arm: str, records: Sequence[Record], exit: int, times: Sequence[float]) -> ExitPoint:
    results, at = results_of(records), with_primary(records, exit)
    values = [result.value for result in results_of(at)]
    computed = [result.metrics.get(f"computed_exit{exit}") for result in results]
    exits = exits_of(records)
    cost = results[0].costs.get(f"exit{exit}") if exits > 1 else None
    return ExitPoint(
        arm=arm,
        label=str(records[0].run.metadata["label"]),
        exit=exit,
        exits=exits,
        miou=fmean(values),
        std=stdev(values) if len(values) > 1 else None,
        interval=image_interval(at),
        dense=(cost or results[0].cost).macs,
        macs=fmean(result.metrics[f"macs_exit{exit}"].value for result in results),
        computed=fmean(one.value if one else 100.0 for one in computed),
        ece=fmean(result.metrics[f"ece_exit{exit}"].value for result in results),
        milliseconds=times[exit - 1] if exit <= len(times) else None,
    )
