"""Roads that were trained side by side: what can be told on each, and how it agrees with the
paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class TrainedRoad:
    """A trained road: its rows that are done, in order, their tests, and how they agree."""

    label: str
    rows: Sequence[ResultRow]
    tests: RowTests
    found: Agreement

    @property
    def largest_std(self) -> float | None:
        """The largest standard deviation between seeds of a row, in points."""
        return max((row.std for row in self.rows if row.std is not None), default=None)

    @property
    def significant(self) -> str | None:
        """How many gains are, of how many tested."""
        tests = self.tests.tested.values()
        return f"{sum(bool(one.significant) for one in tests)} of {len(tests)}" if tests else None


def trained_road(label: str, regime: str, records: Sequence[Record]) -> TrainedRoad:
    """A road by its records, under its own names. Rows without a result are left out."""
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
        Column("largest_std", "largest standard deviation", lambda road: road.largest_std),
        Column("significant", "significant", lambda road: road.significant, "text"),
    ]
    note = "significant: gains along the road, by Welch's t test on seeds with Holm's correction."
    return Table("roads", "Significant gains per road", columns, _with_rows(roads), (note,))


@dataclass(frozen=True)
class AgreementLine:
    """One statistic of a road's agreement with the paper."""

    road: str
    statistic: AgreementStatistic


def agreement_table(roads: Sequence[tuple[str, Agreement]]) -> Table[AgreementLine] | None:
    """How roads, by their labels, agree with the paper; None where no road has rows enough."""
    lines = [AgreementLine(road, one) for road, found in roads for one in found.statistics]
    if not lines:
        return None
    table = next(found.table for _, found in roads if found.statistics)
    columns: list[Column[AgreementLine]] = [
        *(
            [Column[AgreementLine]("road", "road", lambda line: line.road, "text")]
            if len(roads) > 1
            else []
        ),
        Column("what", "correlation of", lambda line: line.statistic.what, "text"),
        Column("value", "measured", lambda line: line.statistic.value, format=signed),
        Column("p", "p", lambda line: line.statistic.p, format=p_value),
        Column("macs_alone", "MACs alone", lambda line: line.statistic.macs_alone, format=signed),
        Column(
            "other_table",
            "the paper's other road",
            lambda line: line.statistic.other_table,
            format=signed,
        ),
        Column(
            "replicate", "the paper repeated", lambda line: line.statistic.replicate, format=signed
        ),
        Column("count", "of", lambda line: line.statistic.count, format=str, screen=False),
    ]
    signs = [
        (f"{label}: " if len(roads) > 1 else "")
        + f"{found.signs} of {plural(found.gains, 'gain')} have the paper's sign; if every "
        f"gain were above 0, {found.plus} would."
        for label, found in roads
        if found.statistics
    ]
    title = f"Agreement with the paper's {table}"
    return Table("agreement", title, columns, lines, (*signs, METHOD, CAVEAT))


def _with_rows(roads: Sequence[TrainedRoad]) -> list[TrainedRoad]:
    return [road for road in roads if road.rows]
