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
MEAN, LAST = 0, -1  # in the place of an exit: the mean over all, and the last of each arm


@dataclass(frozen=True)
class ArmExit:
    """An arm's finished runs at one of its exits, from 1, or at `MEAN` or `LAST`.

    ``milliseconds`` to the exit are of one core, where they were measured.
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
        """How many exits answer in the arm."""
        metrics = results_of(self.records)[0].metrics
        return sum(name.startswith("macs_exit") for name in metrics)

    @cached_property
    def accuracy(self) -> str:
        """The metric that says how right it is: ``miou``, or ``pckh`` where joints are found."""
        return next(one for one in ACCURACIES if one in results_of(self.records)[0].metrics)

    def key(self, metric: str) -> str:
        """The name of a metric at this exit, in records."""
        if self.exit == MEAN or (metric in ACCURACIES and self.exits == 1):
            return metric
        return f"{metric}_exit{self.exits if self.exit == LAST else self.exit}"

    def mean(self, metric: str, everywhere: float | None = None) -> float:
        """Of a metric over the seeds; ``everywhere``, if given, where a run has none of it."""
        key, found = self.key(metric), [result.metrics for result in results_of(self.records)]
        return fmean(
            one[key].value if everywhere is None or key in one else everywhere for one in found
        )

    @cached_property
    def compared(self) -> list[Record]:
        """The records with the accuracy at this exit as primary metric, by one name for all."""
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
        """Of 95 % of the accuracy, for the choice of test images."""
        return image_noise(results_of(self.compared)).interval

    @property
    def dense(self) -> int:
        """Multiply-accumulates up to the exit where nothing is skipped."""
        result = results_of(self.records)[0]
        return result.costs.get(f"exit{self.exit}", result.cost).macs


EXIT_NOTES = (
    "MACs: of one image up to the exit, with the heads before it; at masks: the authors' rule, a "
    "mean over the validation images. ECE: expected calibration error of 15 bins. Intervals: "
    "bootstrap over images of the mean over seeds.",
    "ms: up to the exit, of one core, one image at a time, median of the first images; the first "
    "seed's network in the fastest form that its masks allow.",
)


AtThreshold: TypeAlias = tuple[float, ArmExit]  # a threshold, and the network's last exit at it


def all_exits(arms: Arms, times: Mapping[str, Sequence[float]]) -> list[ArmExit]:
    """Every exit of every arm; ``times`` are milliseconds to each exit, by arm."""
    found = []
    for arm, records in arms.items():
        exits = range(1, ArmExit(records, LAST).exits + 1)
        measured: Sequence[float | None] = times.get(arm) or [None] * len(exits)
        found += [ArmExit(records, exit, ms) for exit, ms in zip(exits, measured, strict=True)]
    return found


def exits_table(exits: Sequence[ArmExit], backbone: str, end: str = "") -> Table[ArmExit]:
    """Every exit of every arm on a backbone."""
    name = exits[0].accuracy
    columns: list[Column[ArmExit]] = [
        Column("arm", "arm", lambda one: one.arm, "text", screen=False),
        Column("label", "arm", lambda one: one.label, "text"),
        Column("exit", "exit", lambda one: one.exit, format=str),
        Column(
            name,
            f"{ACCURACIES[name]} %",
            lambda one: fmean(one.values),
            cell=lambda one: mean_std(fmean(one.values), one.std),
        ),
        Column("std", "std", lambda one: one.std, screen=False),
        Column("ci", "95 %, images", lambda one: one.interval, "interval", format=level_interval),
        Column("dense", "MACs, dense", lambda one: one.dense, prefixed=True),
        Column("macs", "at masks", lambda one: one.mean("macs"), prefixed=True),
        Column("computed", "computed %", lambda one: one.mean("computed", 100.0), format=digits(1)),
        Column("ece", "ECE %", lambda one: one.mean("ece") if one.accuracy == "miou" else None),
        Column("milliseconds", "ms", lambda one: one.milliseconds),
    ]
    title = f"Every exit of every arm: {backbone}"
    return Table(f"anytime_exits{end}", title, columns, exits, EXIT_NOTES)


def thresholds_table(swept: Sequence[AtThreshold], end: str = "") -> Table[AtThreshold]:
    """Accuracy and MACs of each exit of one trained network at each threshold."""
    network = swept[0][1]

    def at_exit(one: AtThreshold, name: str, exit: int) -> float:
        return ArmExit(one[1].records, exit).mean(name)

    columns: list[Column[AtThreshold]] = [
        Column("threshold", "threshold", lambda one: one[0], format="{:g}".format)
    ]
    for name, words in ((network.accuracy, ACCURACIES[network.accuracy]), ("macs", "MACs")):
        for exit in range(1, network.exits + 1):
            value = partial(at_exit, name=name, exit=exit)
            about = (f"{name}_exit{exit}", f"{words}, exit {exit}", value)
            columns.append(Column(*about, prefixed=name == "macs"))
    last, title = f"95 %, exit {network.exits}", "One trained network at each threshold"
    columns.append(
        Column("ci", last, lambda one: one[1].interval, "interval", format=level_interval)
    )
    note = f"{network.label}, seed {network.records[0].run.seed}: trained at one of them, evaluated"
    note += " at each. MACs: means over the validation images. The interval: bootstrap over images."
    return Table(f"anytime_thresholds{end}", title, columns, swept, notes=(note,))


class Claim(NamedTuple):
    """What one arm should gain over another, or a control, at each of some exits."""

    words: str
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


def claims_table(arms: Arms, end: str = "") -> Table[PairTest[ArmExit]] | None:
    """The claims that the runs allow to test, corrected for their number by Holm's method."""
    pairs = []
    for words, *names, exits in CLAIMS:
        for exit in exits if arms.keys() >= set(names) else ():
            child, parent = (ArmExit(arms[name], exit) for name in names)
            if exit <= min(child.exits, parent.exits):
                pairs.append(Pair(child, parent, words))
    if not pairs:
        return None
    tests = compare_pairs(pairs, lambda at: at.compared)
    noise = (
        "One seed: nothing is tested, and intervals (bootstrap over images) cover the choice of "
        "test images only; claims about networks take several seeds."
        if all(one.comparison.significant is None for one in tests)
        else "Welch's t test on seeds, of each exit; 'seeds and images' is the interval where test "
        "images are drawn anew too, from three shared seeds or more."
    )
    about = "1 to 4: the paper's claims; CA should lose nothing over RH, and gain over the others. "
    about += f"p after Holm's correction over {len(tests)} tests; intervals of each test alone."
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
    return Table(f"anytime_claims{end}", title, columns, tests, notes=(noise, about))


def _name(test: PairTest[ArmExit]) -> str:
    return f"{test.first.arm}-{test.second.arm}-{test.first.where}"
