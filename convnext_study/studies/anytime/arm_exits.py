"""The study's finished runs exit by exit: all exits of all arms, and the tests between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean, stdev
from typing import NamedTuple, TypeAlias

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.comparison import comparison_columns
from convnext_study.report.tables.formatting import digits, level_interval, mean_std, signed
from convnext_study.results.claims import Pair, PairTest, compare_pairs, with_metric
from convnext_study.results.compare import image_noise
from convnext_study.results.statistics.intervals import Interval
from convnext_study.results.subset_results import results_of
from convnext_study.runs.records import Record

Arms: TypeAlias = Mapping[str, Sequence[Record]]  # finished runs by arm
ACCURACIES = {"miou": "mIoU", "pckh": "PCKh"}
MEAN, LAST = 0, -1  # instead of an exit's number: the mean over all exits, and each arm's last


@dataclass(frozen=True)
class ArmExit:
    """An arm's finished runs at one of its exits, from 1, or at `MEAN` or `LAST`.

    ``milliseconds`` to the exit are on one core, where they were measured.
    """

    records: Sequence[Record]
    exit: int
    milliseconds: float | None = None

    @property
    def arm(self) -> str:
        """Its name."""
        return str(self.records[0].run.metadata["row"])

    @property
    def label(self) -> str:
        """The arm in words."""
        return str(self.records[0].run.metadata["label"])

    @property
    def where(self) -> str:
        """The exit, for tables."""
        return {MEAN: "mean", LAST: "last"}.get(self.exit, str(self.exit))

    @cached_property
    def exits(self) -> int:
        """The arm's number of exits."""
        metrics = results_of(self.records)[0].metrics
        return sum(name.startswith("macs_exit") for name in metrics)

    @cached_property
    def accuracy(self) -> str:
        """The accuracy metric: ``miou``, or ``pckh`` for joints."""
        return next(name for name in ACCURACIES if name in results_of(self.records)[0].metrics)

    def key(self, metric: str) -> str:
        """The name of a metric at this exit, in records."""
        if self.exit == MEAN or (metric in ACCURACIES and self.exits == 1):
            return metric
        return f"{metric}_exit{self.exits if self.exit == LAST else self.exit}"

    def mean(self, metric: str, default: float | None = None) -> float:
        """Of a metric over the seeds, with ``default`` for runs that lack it."""
        key, runs = self.key(metric), [result.metrics for result in results_of(self.records)]
        return fmean(run[key].value if default is None or key in run else default for run in runs)

    @cached_property
    def compared(self) -> list[Record]:
        """The records with the accuracy at this exit as primary metric, by one common name."""
        name = self.accuracy
        metrics = [result.metrics[self.key(name)] for result in results_of(self.records)]
        return [
            with_metric(record, metric.model_copy(update={"label": ACCURACIES[name]}))
            for record, metric in zip(self.records, metrics, strict=True)
        ]

    @property
    def values(self) -> list[float]:
        """The accuracy of each seed."""
        return [result.value for result in results_of(self.compared)]

    @property
    def std(self) -> float | None:
        """Of the accuracy between seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    @cached_property
    def interval(self) -> Interval | None:
        """The 95 % interval of the accuracy, for the choice of test images."""
        return image_noise(results_of(self.compared)).interval

    @property
    def dense(self) -> int:
        """Multiply-accumulates up to the exit with nothing skipped."""
        result = results_of(self.records)[0]
        return result.costs.get(f"exit{self.exit}", result.cost).macs


EXIT_NOTES = (
    "MACs: per image up to the exit, including earlier heads; at masks: the authors' rule, "
    "averaged over the validation images. ECE: expected calibration error, 15 bins. Intervals: "
    "bootstrap over images of the mean over seeds.",
    "ms: up to the exit, on one core, one image at a time, median over the first images; the "
    "first seed's network in the fastest form that its masks allow.",
)


AtThreshold: TypeAlias = tuple[float, ArmExit]  # a threshold, and a network's last exit with it


def all_exits(arms: Arms, times: Mapping[str, Sequence[float]]) -> list[ArmExit]:
    """Every exit of every arm; ``times`` are milliseconds to each exit, by arm."""
    exits = []
    for arm, records in arms.items():
        numbers = range(1, ArmExit(records, LAST).exits + 1)
        measured: Sequence[float | None] = times.get(arm) or [None] * len(numbers)
        exits += [ArmExit(records, i, ms) for i, ms in zip(numbers, measured, strict=True)]
    return exits


def exits_table(exits: Sequence[ArmExit], backbone: str, suffix: str = "") -> Table[ArmExit]:
    """Every exit of every arm on a backbone."""
    name = exits[0].accuracy
    columns: list[Column[ArmExit]] = [
        Column("arm", "arm", lambda row: row.arm, "text", screen=False),
        Column("label", "arm", lambda row: row.label, "text"),
        Column("exit", "exit", lambda row: row.exit, format=str),
        Column(
            name,
            f"{ACCURACIES[name]} %",
            lambda row: fmean(row.values),
            cell=lambda row: mean_std(fmean(row.values), row.std),
        ),
        Column("std", "std", lambda row: row.std, screen=False),
        Column("ci", "95 %, images", lambda row: row.interval, "interval", format=level_interval),
        Column("dense", "MACs, dense", lambda row: row.dense, prefixed=True),
        Column("macs", "at masks", lambda row: row.mean("macs"), prefixed=True),
        Column("computed", "computed %", lambda row: row.mean("computed", 100.0), format=digits(1)),
        Column("ece", "ECE %", lambda row: row.mean("ece") if row.accuracy == "miou" else None),
        Column("milliseconds", "ms", lambda row: row.milliseconds),
    ]
    title = f"Every exit of every arm: {backbone}"
    return Table(f"anytime_exits{suffix}", title, columns, exits, EXIT_NOTES)


def thresholds_table(rows: Sequence[AtThreshold], suffix: str = "") -> Table[AtThreshold]:
    """Accuracy and MACs of each exit of one trained network at each threshold."""
    network = rows[0][1]

    def at_exit(row: AtThreshold, name: str, exit: int) -> float:
        return ArmExit(row[1].records, exit).mean(name)

    columns: list[Column[AtThreshold]] = [
        Column("threshold", "threshold", lambda row: row[0], format="{:g}".format)
    ]
    for name, heading in ((network.accuracy, ACCURACIES[network.accuracy]), ("macs", "MACs")):
        for exit in range(1, network.exits + 1):
            value = partial(at_exit, name=name, exit=exit)
            spec = (f"{name}_exit{exit}", f"{heading}, exit {exit}", value)
            columns.append(Column(*spec, prefixed=name == "macs"))
    last, title = f"95 %, exit {network.exits}", "One trained network at each threshold"
    columns.append(
        Column("ci", last, lambda row: row[1].interval, "interval", format=level_interval)
    )
    note = (
        f"{network.label}, seed {network.records[0].run.seed}: trained at one threshold, evaluated"
    )
    note += " at each. MACs: means over the validation images. The interval: bootstrap over images."
    return Table(f"anytime_thresholds{suffix}", title, columns, rows, notes=(note,))


class Claim(NamedTuple):
    """That one arm is better than another, or a control, at each of some exits."""

    question: str
    child: str
    parent: str
    exits: tuple[int, ...] = (LAST,)


_ALL = (MEAN, 1, 2, 3, 4)
CLAIMS = (
    Claim("1: RH over EE", "rh", "ee", _ALL),
    Claim("2: CA over RH (no loss)", "ca", "rh", _ALL),
    Claim("3: CA over one exit", "ca", "plain"),
    Claim("4: CA over random masks", "ca", "random", _ALL),
    Claim("EE over one exit", "ee", "plain"),
    Claim("deep supervision over one exit", "deep", "plain"),
    Claim("EE over deep supervision", "ee", "deep"),
)


def claims_table(arms: Arms, suffix: str = "") -> Table[PairTest[ArmExit]] | None:
    """Tests of the claims for which there are runs, corrected by Holm's method."""
    pairs = []
    for question, *names, exits in CLAIMS:
        for exit in exits if arms.keys() >= set(names) else ():
            child, parent = (ArmExit(arms[name], exit) for name in names)
            if exit <= min(child.exits, parent.exits):
                pairs.append(Pair(child, parent, question))
    if not pairs:
        return None
    tests = compare_pairs(pairs, lambda arm_exit: arm_exit.compared)
    noise = (
        "One seed: nothing is tested, and intervals (bootstrap over images) cover only the "
        "choice of test images; claims about networks need several seeds."
        if all(test.comparison.significant is None for test in tests)
        else (
            "Welch's t test on seeds, for each exit; 'seeds and images' is the "
            "interval where test images are resampled too, from three shared seeds "
            "on."
        )
    )
    text = "1 to 4: the paper's claims; CA should lose nothing over RH, and gain over the others. "
    text += f"p after Holm's correction over {len(tests)} tests; intervals are for single tests."
    columns: list[Column[PairTest[ArmExit]]] = [
        Column("name", "name", _name, "text", screen=False),
        Column("claim", "claim", lambda test: test.question, "text"),
        Column("exit", "exit", lambda test: test.first.where, "text"),
        *comparison_columns(lambda test: test.comparison, tests[0].comparison.metric),
        Column(
            "ci_images",
            "seeds and images",
            lambda test: test.comparison.new_images and test.comparison.new_images.interval,
            "interval",
        ),
        Column(
            "macs",
            "MACs, difference",
            lambda test: test.first.mean("macs") - test.second.mean("macs"),
            format=signed,
            prefixed=True,
        ),
    ]
    title = "Claims and controls, on this data"
    return Table(f"anytime_claims{suffix}", title, columns, tests, notes=(noise, text))


def _name(test: PairTest[ArmExit]) -> str:
    return f"{test.first.arm}-{test.second.arm}-{test.first.where}"
