"""Roads that were trained side by side: significant gains on each, and agreement with the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from convnext_study.report.tables.formatting import p_value, plural, signed
from convnext_study.report.tables.table import Column, Table
from convnext_study.results.effects import RowTests
from convnext_study.results.grouping import group
from convnext_study.results.paper import (
    CAVEAT,
    METHOD,
    Agreement,
    AgreementStatistic,
    agreement_of_rows,
)
from convnext_study.results.rows import ResultRow
from convnext_study.results.summary import rows_and_tests
from convnext_study.runs.records import Record


class TrainedRoad(NamedTuple):
    """A trained road: its finished rows, in order, their tests, and agreement with the paper."""

    label: str
    rows: Sequence[ResultRow]
    tests: RowTests
    agreement: Agreement

    @property
    def significant(self) -> str | None:
        """The number of significant gains, of those tested."""
        tests = self.tests.tested.values()
        return f"{sum(bool(test.significant) for test in tests)} of {len(tests)}" if tests else None


def trained_road(label: str, regime: str, records: Sequence[Record]) -> TrainedRoad:
    """A road from its records. Rows without a result are left out."""
    rows, tests = rows_and_tests(group(records))
    done = [row for row in rows if row.value is not None]
    return TrainedRoad(label, done, tests, agreement_of_rows(regime, done))


def roads_table(roads: Sequence[TrainedRoad]) -> Table[TrainedRoad]:
    """Significant gains per road that has a result."""
    columns: list[Column[TrainedRoad]] = [
        Column("road", "road", lambda road: road.label, "text"),
        Column("seeds", "seeds", lambda road: max(len(row.seeds) for row in road.rows), format=str),
        Column("first", "first row, %", lambda road: road.rows[0].value),
        Column("last", "last row, %", lambda road: road.rows[-1].value),
        Column(
            "largest_std",
            "largest standard deviation",
            lambda road: max((row.std for row in road.rows if row.std is not None), default=None),
        ),
        Column("significant", "significant", kind="text"),
    ]
    note = "significant: gains along the road, by Welch's t test on seeds with Holm's correction."
    rows = [road for road in roads if road.rows]
    return Table("roads", "Significant gains per road", columns, rows, (note,))


_LabelledStatistic = tuple[str, AgreementStatistic]  # a road's label, and one of its statistics


def agreement_table(roads: Sequence[tuple[str, Agreement]]) -> Table[_LabelledStatistic] | None:
    """The agreement of labelled roads with the paper; None where no road has enough rows."""
    lines = [(road, statistic) for road, agreement in roads for statistic in agreement.statistics]
    if not lines:
        return None
    table = next(agreement.table for _, agreement in roads if agreement.statistics)

    def column(name: str, heading: str, **options: Any) -> Column[_LabelledStatistic]:
        return Column(name, heading, lambda line: getattr(line[1], name), **options)

    columns = [
        column("what", "correlation of", kind="text"),
        column("value", "measured", format=signed),
        column("p", "p", format=p_value),
        column("macs_alone", "MACs alone", format=signed),
        column("other_table", "the paper's other road", format=signed),
        column("replicate", "the paper repeated", format=signed),
        column("count", "of", format=str, screen=False),
    ]
    several = len(roads) > 1
    if several:
        columns.insert(0, Column("road", "road", lambda line: line[0], "text"))
    signs = [
        (f"{label}: " if several else "")
        + f"{agreement.signs} of {plural(agreement.gains, 'gain')} have the "
        f"paper's sign; if every gain were positive, {agreement.plus} would."
        for label, agreement in roads
        if agreement.statistics
    ]
    title = f"Agreement with the paper's {table}"
    return Table("agreement", title, columns, lines, (*signs, METHOD, CAVEAT))
