"""What the runs show: rows beside the paper's numbers, its claims, and what widening costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from convnext_study.report.findings import Finding, StudyFigure
from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.comparison import comparison_columns
from convnext_study.report.tables.formatting import count, digits, mean_std, signed
from convnext_study.results.claims import Pair, PairTest, compare_pairs, with_metric
from convnext_study.results.rows import ResultRow
from convnext_study.results.summary import summarize
from convnext_study.runs.records import Record
from convnext_study.studies.multipath import growth
from convnext_study.studies.multipath.rows import ROWS, ComparisonRow

# What the paper prints, with its errata.


class Published(NamedTuple):
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
NOTES = (
    "MB: 4 bytes a parameter, in millions. MACs: of one image of the size that was trained on. "
    "└: beside the road.",
    "paper: printed in the paper for its own networks of full size on CIFAR-10, not measured "
    "here; it does not say how its 33 MB network was widened.",
    ERRATUM,
)

Rows: TypeAlias = Mapping[str, Sequence[Record]]
Networks: TypeAlias = tuple[str, ...]  # one's name, or two: what the first gains over the second
Test: TypeAlias = PairTest[Networks]

# What the paper claims: in words, and the networks whose difference should be above 0.
CLAIMS: tuple[tuple[str, Networks, Networks], ...] = (
    ("widened in paths over channels, equal size", ("paths",), ("channels",)),
    ("1: different over equal depths, equal size", ("depths",), ("paths",)),
    ("3: path attention, different depths", ("depths_path",), ("depths",)),
    ("3: path attention, equal depths", ("paths_path",), ("paths",)),
    ("3: SE, different depths", ("depths_se",), ("depths",)),
    ("3: SE, equal depths", ("paths_se",), ("paths",)),
    ("5.3 MB network over ResNet-18", ("depths",), ("resnet18",)),
    ("33 MB network over SE-ResNet-18", ("large",), ("se_resnet18",)),
    (
        "3: path attention, more with different depths",
        ("depths_path", "depths"),
        ("paths_path", "paths"),
    ),
    ("3: SE, more with different depths", ("depths_se", "depths"), ("paths_se", "paths")),
)


def findings(records: Iterable[Record], data: str, full: bool) -> list[Finding]:
    """The comparison, the claims and the counts of a study's finished runs; nothing of none.

    Args:
        records: of the runs that the study asks for.
        data: URI of what they were trained on.
        full: whether these are networks of the paper's size.
    """
    rows: dict[str, list[Record]] = {}
    for record in records:
        if record.result is not None:
            rows.setdefault(record.run.metadata["row"], []).append(record)
    if not rows:
        return []
    tested = claims_table(rows)
    return [
        comparison_table(rows, data, full),
        *([tested] if tested else []),
        "\n".join(["2: what widening costs", *growth.sentences()]),
        StudyFigure("multipath_growth", growth.TITLE, growth.figure()),
    ]


class NetworkResult(NamedTuple):
    """A network of the comparison, and its finished runs, if there are any."""

    row: ComparisonRow
    result: ResultRow | None

    @property
    def accuracy(self) -> str:
        """Mean and standard deviation over the seeds, or that there is none."""
        found = self.result
        return mean_std(found.value, found.std) if found and found.value is not None else "not run"


def comparison_table(rows: Rows, data: str, full: bool) -> Table[NetworkResult]:
    """Accuracy, parameters, MB and MACs of each row, and the paper's numbers beside them.

    Args:
        rows: finished records by the names of their rows.
        data: URI of what they were trained on.
        full: whether these are networks of the paper's size.
    """

    def result(name: str) -> Callable[[NetworkResult], Any]:
        return lambda one: getattr(one.result, name, None)

    def paper(name: str) -> Callable[[NetworkResult], Any]:
        return lambda one: getattr(PAPER.get(one.row.name), name, None)

    columns: list[Column[NetworkResult]] = [
        Column(
            "label",
            "network",
            lambda one: one.row.label if one.row.adopted else f"└ {one.row.label}",
            "text",
        ),
        Column("mean", "top-1 %", result("value"), cell=lambda one: one.accuracy),
        Column("n", "seeds", lambda one: one.result and len(one.result.seeds), format=str),
        Column("params", "params", result("params"), format=count),
        Column(
            "mb",
            "MB",
            lambda one: one.result and 4e-6 * (one.result.params or 0),
            format=digits(3),
        ),
        Column("macs", "MACs", result("macs"), prefixed=True),
        Column("paper_value", "paper, top-1 %", paper("top1")),
        Column("paper_mb", "paper, MB", paper("mb"), format=digits(1)),
    ]
    size = "" if full else ", a quarter as wide and briefly trained"
    title = f"Multi-path networks, our reconstruction{size}: {data.partition(':')[0]}"
    results = {one.metadata["row"]: one for one in summarize(_all(rows))}
    lines = [NetworkResult(row, results.get(row.name)) for row in ROWS]
    shown = [one for one in lines if one.result or one.row.name in PAPER]
    return Table("multipath", title, columns, shown, notes=NOTES)


def claims_table(rows: Rows) -> Table[Test] | None:
    """The claims about accuracy that the runs allow to test, corrected by Holm's method."""
    pairs = []
    for words, first, second in CLAIMS:
        if not {*first, *second} <= rows.keys():
            continue
        few = min(len(gains(rows, one)) for one in (first, second)) < 2 if first[1:] else False
        if not few:
            pairs.append(Pair(first, second, words))
    if not pairs:
        return None
    tests = compare_pairs(pairs, lambda one: rows[one[0]] if len(one) == 1 else gains(rows, one))
    noise = (
        "One seed: nothing is tested, and intervals cover the choice of test images only; claims "
        "about networks take several seeds, and so does how attention depends on different depths."
        if all(one.comparison.significant is None for one in tests)
        else "Welch's t test on seeds."
    )
    corrected = f"p after Holm's correction over {len(tests)} tests; intervals of each test alone."

    def macs(test: Test) -> float | None:
        """Of one image, what the claimed gain costs."""
        if len(test.first) > 1:
            return None
        one, other = (rows[names[0]][0].result for names in (test.first, test.second))
        return one.cost.macs - other.cost.macs if one and other else None

    columns: list[Column[Test]] = [
        Column("name", "name", lambda one: "-".join(one.first + one.second), "text", screen=False),
        Column("claim", "claim", lambda one: one.question, "text"),
        *comparison_columns(lambda one: one.comparison, tests[0].comparison.metric),
        Column("macs", "MACs, difference", macs, format=signed, prefixed=True),
    ]
    title = "What the paper claims, on our reconstruction and this data"
    return Table("multipath_claims", title, columns, tests, notes=(noise, corrected))


def gains(rows: Rows, networks: Networks) -> list[Record]:
    """The first network's records of the seeds that both have, with its gain as their metric."""
    mine, its = (
        {one.run.seed: (one, one.result) for one in rows[name] if one.result} for name in networks
    )
    return [
        # The images that it was measured on say nothing of a difference.
        with_metric(
            record,
            result.metric.model_copy(
                update={"value": result.value - its[seed][1].value, "samples": None}
            ),
        )
        for seed, (record, result) in mine.items()
        if seed in its
    ]


def _all(rows: Rows) -> list[Record]:
    return [one for records in rows.values() for one in records]
