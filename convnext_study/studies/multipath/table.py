"""The comparison as a table: the rows' accuracy and size, and the paper's numbers beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import count, digits, mean_std
from convnext_study.results.subset_results import results_of
from convnext_study.runs.records import Record, Result
from convnext_study.studies.multipath.published import ERRATUM, PAPER, Published
from convnext_study.studies.multipath.rows import ROWS, ComparisonRow

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
