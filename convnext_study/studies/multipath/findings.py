"""The study's findings: rows beside the paper's numbers, its claims, and the cost of widening."""

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


class Published(NamedTuple):
    """The paper's figures for a network on CIFAR-10: top-1 in percent, or words, and its MB."""

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
    "MB: 4 bytes per parameter, in millions. MACs: per image at the training size. └: beside the "
    "road.",
    "paper: printed in the paper for its own full-size networks on CIFAR-10, not measured here; "
    "it does not say how its 33 MB network was widened.",
    ERRATUM,
)

Rows: TypeAlias = Mapping[str, Sequence[Record]]
Networks: TypeAlias = tuple[str, ...]  # one name, or two: the gain of the first over the second
Test: TypeAlias = PairTest[Networks]

# The paper's claims: in words, and the networks whose difference should be above 0.
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
    """The comparison, the claims and the counts of a study's finished runs; empty without any.

    Args:
        records: of the study's runs.
        data: URI of their training data.
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
        """Mean and standard deviation over the seeds, or ``not run``."""
        if self.result is None or self.result.value is None:
            return "not run"
        return mean_std(self.result.value, self.result.std)


def comparison_table(rows: Rows, data: str, full: bool) -> Table[NetworkResult]:
    """Accuracy, parameters, MB and MACs of each row, and the paper's numbers beside them.

    Args:
        rows: finished records by row name.
        data: URI of their training data.
        full: whether these are networks of the paper's size.
    """

    def result(name: str) -> Callable[[NetworkResult], Any]:
        return lambda line: getattr(line.result, name, None)

    def paper(name: str) -> Callable[[NetworkResult], Any]:
        return lambda line: getattr(PAPER.get(line.row.name), name, None)

    columns: list[Column[NetworkResult]] = [
        Column(
            "label",
            "network",
            lambda line: line.row.label if line.row.adopted else f"└ {line.row.label}",
            "text",
        ),
        Column("mean", "top-1 %", result("value"), cell=lambda line: line.accuracy),
        Column("n", "seeds", lambda line: line.result and len(line.result.seeds), format=str),
        Column("params", "params", result("params"), format=count),
        Column(
            "mb",
            "MB",
            lambda line: line.result and 4e-6 * (line.result.params or 0),
            format=digits(3),
        ),
        Column("macs", "MACs", result("macs"), prefixed=True),
        Column("paper_value", "paper, top-1 %", paper("top1")),
        Column("paper_mb", "paper, MB", paper("mb"), format=digits(1)),
    ]
    size = "" if full else ", a quarter as wide and briefly trained"
    title = f"Multi-path networks, our reconstruction{size}: {data.partition(':')[0]}"
    results = {line.metadata["row"]: line for line in summarize(_all(rows))}
    lines = [NetworkResult(row, results.get(row.name)) for row in ROWS]
    shown = [line for line in lines if line.result or line.row.name in PAPER]
    return Table("multipath", title, columns, shown, notes=NOTES)


def claims_table(rows: Rows) -> Table[Test] | None:
    """Tests of the claims about accuracy for which there are runs, corrected by Holm's method."""
    pairs = []
    for question, first, second in CLAIMS:
        if not {*first, *second} <= rows.keys():
            continue
        if first[1:] and min(len(gains(rows, names)) for names in (first, second)) < 2:
            continue  # a difference of gains takes two seeds
        pairs.append(Pair(first, second, question))
    if not pairs:
        return None
    tests = compare_pairs(
        pairs, lambda names: rows[names[0]] if len(names) == 1 else gains(rows, names)
    )
    noise = (
        "One seed: nothing is tested, and intervals cover only the choice of test images; claims "
        "about networks need several seeds, and so does the interaction of attention with "
        "different depths."
        if all(test.comparison.significant is None for test in tests)
        else "Welch's t test on seeds."
    )
    corrected = (
        f"p after Holm's correction over {len(tests)} tests; intervals are for single tests."
    )

    def macs(test: Test) -> float | None:
        """The cost of the claimed gain, per image."""
        if len(test.first) > 1:
            return None
        first, second = (rows[names[0]][0].result for names in (test.first, test.second))
        return first.cost.macs - second.cost.macs if first and second else None

    columns: list[Column[Test]] = [
        Column("name", "name", lambda t: "-".join(t.first + t.second), "text", screen=False),
        Column("claim", "claim", lambda test: test.question, "text"),
        *comparison_columns(lambda test: test.comparison, tests[0].comparison.metric),
        Column("macs", "MACs, difference", macs, format=signed, prefixed=True),
    ]
    title = "What the paper claims, on our reconstruction and this data"
    return Table("multipath_claims", title, columns, tests, notes=(noise, corrected))


def gains(rows: Rows, networks: Networks) -> list[Record]:
    """The first network's records of the seeds that both have, with its gain as their metric."""
    own, other = (
        {rec.run.seed: (rec, rec.result) for rec in rows[name] if rec.result} for name in networks
    )
    return [
        # The samples are those of the network's own metric, not of the difference.
        with_metric(
            record,
            result.metric.model_copy(
                update={"value": result.value - other[seed][1].value, "samples": None}
            ),
        )
        for seed, (record, result) in own.items()
        if seed in other
    ]


def _all(rows: Rows) -> list[Record]:
    return [record for records in rows.values() for record in records]
