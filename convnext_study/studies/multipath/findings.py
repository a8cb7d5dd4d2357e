"""What the runs show: rows beside the paper's numbers, its claims, and what widening costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits, mean_std
from convnext_study.results.compare import Comparison, compare, holm_adjust
from convnext_study.results.effects import Effect, Effects
from convnext_study.results.min_detectable import pooled_std
from convnext_study.results.statistics.intervals import PooledStd, t_difference
from convnext_study.results.subset_results import results_of
from convnext_study.results.summary import summarize
from convnext_study.runs.records import Record, Result
from convnext_study.studies.multipath import growth
from convnext_study.studies.multipath.rows import ROWS, ComparisonRow

# What the paper prints, with its errata.


@dataclass(frozen=True)
class Published:
    """What the paper prints of a network on CIFAR-10: top-1 in percent, or words, and its MB."""

    top1: float | str
    mb: float


_LARGE = Published(95.15, 33.0)  # the paper does not say how this network was widened

PAPER = {
    "depths": Published("ResNet-18 + 1.32", 5.3),
    "large": _LARGE,
    "large_paths": _LARGE,
    "resnet18": Published("", 43.4),
    "se_resnet18": Published(94.50, 45.1),
}
ERRATUM = (
    "The paper prints 43.4 MB for ResNet-18. No standard ResNet-18 has that size in MB or MiB: "
    "with a 3x3 stem and 10 classes it has 11,173,962 parameters, 44.70 MB."
)

Rows = Mapping[str, Sequence[Record]]


class Line(NamedTuple):
    """A network of the comparison and its finished runs."""

    row: ComparisonRow
    results: Sequence[Result]

    @property
    def mean(self) -> float | None:
        """Top-1 in percent over the seeds."""
        return fmean(result.value for result in self.results) if self.results else None

    @property
    def std(self) -> float | None:
        """Standard deviation between seeds, in points."""
        tops = [result.value for result in self.results]
        return stdev(tops) if len(tops) > 1 else None

    @property
    def accuracy(self) -> str:
        """Mean and standard deviation, or that there is none."""
        return "not run" if self.mean is None else mean_std(self.mean, self.std)

    @property
    def first(self) -> Result | None:
        """The first seed's result: size and cost are the same in all."""
        return self.results[0] if self.results else None

    @property
    def paper(self) -> Published | None:
        """What the paper prints of this network."""
        return PAPER.get(self.row.name)


COLUMNS: list[Column[Line]] = [
    Column(
        "label",
        "network",
        lambda line: line.row.label if line.row.adopted else f"└ {line.row.label}",
        "text",
    ),
    Column("mean", "top-1 %", lambda line: line.mean, cell=lambda line: line.accuracy),
    Column("n", "seeds", lambda line: len(line.results) or None, format=str),
    Column("params", "params", lambda line: line.first and line.first.cost.params, format=count),
    Column(
        "mb", "MB", lambda line: line.first and 4 * line.first.cost.params / 1e6, format=digits(3)
    ),
    Column("macs", "MACs", lambda line: line.first and line.first.cost.macs, prefixed=True),
    Column("paper_value", "paper, top-1 %", lambda line: line.paper and line.paper.top1),
    Column("paper_mb", "paper, MB", lambda line: line.paper and line.paper.mb, format=digits(1)),
]
NOTES = (
    "MB: 4 bytes a parameter, in millions. MACs: of one image of the size that was trained on. "
    "└: beside the road.",
    "paper: printed in the paper for its own networks of full size on CIFAR-10, not measured "
    "here; it does not say how its 33 MB network was widened.",
    ERRATUM,
)


def comparison_table(rows: Rows, data: str, full: bool) -> Table[Line]:
    """Accuracy, parameters, MB and MACs of each row, and the paper's numbers beside them.

    Args:
        rows: finished records by the names of their rows.
        data: URI of what they were trained on.
        full: whether these are networks of the paper's size.
    """
    size = "" if full else ", a quarter as wide and briefly trained"
    title = f"Multi-path networks, our reconstruction{size}: {data.partition(':')[0]}"
    lines = [Line(row, results_of(rows.get(row.name, ()))) for row in ROWS]
    shown = [line for line in lines if line.results or line.row.name in PAPER]
    return Table("multipath", title, COLUMNS, shown, notes=NOTES)


# What the paper claims: a name, the words, and the rows whose difference should be above 0.
CLAIMS = (
    ("paths", "widened in paths over channels, equal size", ("paths", "channels")),
    ("depths", "1: different over equal depths, equal size", ("depths", "paths")),
    ("depths_path", "3: path attention, different depths", ("depths_path", "depths")),
    ("paths_path", "3: path attention, equal depths", ("paths_path", "paths")),
    ("depths_se", "3: SE, different depths", ("depths_se", "depths")),
    ("paths_se", "3: SE, equal depths", ("paths_se", "paths")),
    ("over_resnet18", "5.3 MB network over ResNet-18", ("depths", "resnet18")),
    ("over_se_resnet18", "33 MB network over SE-ResNet-18", ("large", "se_resnet18")),
)


def findings(records: Iterable[Record], data: str, full: bool) -> list[Finding]:
    """The comparison, the claims and the counts of a study's finished runs; nothing of none.

    Args:
        records: of the runs that the study asks for.
        data: URI of what they were trained on.
        full: whether these are networks of the paper's size.
    """
    rows = by_row(records)
    if not rows:
        return []
    tested = claims(rows)
    return [
        comparison_table(rows, data, full),
        *([tested] if tested else []),
        "\n".join(["2: what widening costs", *growth.sentences()]),
        StudyFigure("multipath_growth", growth.TITLE, growth.figure()),
    ]


def by_row(records: Iterable[Record]) -> Rows:
    """The finished runs by the names of their rows."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        if record.result is not None:
            rows.setdefault(record.run.metadata["row"], []).append(record)
    return rows


def claims(rows: Rows) -> Effects | None:
    """The claims about accuracy that the runs allow to test, each with its interval and verdict."""
    std = pooled_std(summarize(one for records in rows.values() for one in records), "networks")
    tests: dict[str, Comparison] = {}
    for name, _, (child, parent) in CLAIMS:
        if rows.get(child) and rows.get(parent):
            tests[name] = compare(rows[child], rows[parent], std=std)
    if std is not None:
        for kind in ("path", "se"):
            if test := interaction(rows, kind, std):
                tests[f"more_{kind}"] = test
    if not tests:
        return None
    lines = [_line(name, test, rows) for name, test in holm_adjust(tests).items()]
    noise = (
        "One seed: tests (exact McNemar) cover the choice of test images only; claims about "
        "networks take several seeds, and so does how attention depends on different depths."
        if std is None
        else f"The deviation between seeds is {std.std:.2f} points, pooled over "
        f"{std.source} ({std.df:g} degrees of freedom)."
    )
    corrected = f"p after Holm's correction over {len(lines)} tests; intervals of each test alone."
    return Effects(
        kind="multipath_claims",
        title="What the paper claims, on our reconstruction and this data",
        effect_label="gain",
        rows=tuple(lines),
        notes=(*map(verdict, lines), noise, corrected),
        metric=next(iter(tests.values())).metric,
    )


def interaction(rows: Rows, kind: str, std: PooledStd) -> Comparison | None:
    """How much more attention gives with different depths than with equal ones."""
    four = [rows.get(name) for name in (f"depths_{kind}", "depths", f"paths_{kind}", "paths")]
    if not all(four):
        return None
    tops = [[result.value for result in results_of(records or ())] for records in four]
    mean = [fmean(values) for values in tops]
    diff = (mean[0] - mean[1]) - (mean[2] - mean[3])
    error = std.std * math.sqrt(sum(1 / len(values) for values in tops))
    found = t_difference(diff, error, std.df, "t test on a difference of differences")
    return Comparison(difference=found, p_adjusted=found.p, family=1, scope="seeds", note="")


def verdict(line: Effect) -> str:
    """A claim in words: what its test allows to say of its direction, and no more."""
    low, high = line.interval or (-math.inf, math.inf)
    said = "not significant"
    if line.significant:
        said = "significant, upwards" if line.diff > 0 else "significant, downwards"
    return f"{line.label}: {said} ({line.diff:+.2f} points, 95 % {low:+.2f} to {high:+.2f})."


def _line(name: str, test: Comparison, rows: Rows) -> Effect:
    pairs = {one: pair for one, _, pair in CLAIMS}
    words = {one: label for one, label, _ in CLAIMS} | {
        "more_path": "3: path attention, more with different depths",
        "more_se": "3: SE, more with different depths",
    }
    about = results_of(rows[pairs[name][0]]) if name in pairs else []
    before = results_of(rows[pairs[name][1]])[0].cost.macs if name in pairs else 0
    return Effect(
        name=name,
        label=words[name],
        diff=test.difference.diff,
        macs=about[0].cost.macs - before if about else 0,
        interval=test.difference.interval,
        p=test.difference.p,
        p_adjusted=test.p_adjusted,
        significant=test.significant,
        value=fmean(result.value for result in about) if about else None,
        network_macs=about[0].cost.macs if about else None,
        seeds=len(about) or None,
    )
