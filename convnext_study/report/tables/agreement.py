"""Roads that were trained side by side: what can be told on each, and how it agrees with the
paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from convnext_study.report.tables.formatting import level_interval, p_value, signed
from convnext_study.report.tables.table import Column, Table
from convnext_study.results.effects import RowTests
from convnext_study.results.grouping import group
from convnext_study.results.paper import (
    CAVEAT,
    METHOD,
    Agreement,
    Correlation,
    SignAgreement,
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

    def significant(self, *, pooled: bool) -> str | None:
        """How many gains are, of how many tested, by one way of asking."""
        tests = self.tests.pooled if pooled else self.tests.plain
        told = sum(bool(one.significant) for one in tests.values())
        return f"{told} of {len(tests)}" if tests else None


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
        Column("significant", "significant", lambda road: road.significant(pooled=False), "text"),
        Column("pooled", "pooled", lambda road: road.significant(pooled=True), "text"),
    ]
    note = (
        "significant: gains along the road after Holm's correction, by each row's own runs. "
        "pooled: with the standard deviation between seeds pooled over the road's rows."
    )
    return Table("roads", "Significant gains per road", columns, _with_rows(roads), (note,))


class AgreementLine(NamedTuple):
    """One way in which a road may agree with the paper."""

    road: str
    what: str
    order: Correlation | None
    signs: SignAgreement | None


def agreement_table(roads: Sequence[TrainedRoad]) -> Table[AgreementLine]:
    """How each road that has a result agrees with the paper: in order and in signs."""
    shown = _with_rows(roads)
    lines = [line for road in shown for line in _lines(road)]
    columns: list[Column[AgreementLine]] = [
        Column("road", "road", lambda line: line.road, "text"),
        Column("what", "order of", lambda line: line.what, "text"),
        Column("tau", "Kendall's tau", lambda line: line.order and line.order.tau, format=signed),
        Column("tau_interval", "95 %", lambda line: line.order and line.order.interval, "interval"),
        Column("p", "p", lambda line: line.order and line.order.p, format=p_value),
        Column("signs", "equal signs", lambda line: line.signs and line.signs.equal, cell=_signs),
        Column("signs_of", "of", lambda line: line.signs and line.signs.count, screen=False),
        Column(
            "signs_interval",
            "95 %, of signs",
            lambda line: line.signs and line.signs.interval,
            "interval",
            format=partial(level_interval, digits=0),
        ),
    ]
    about = [road.found for road in shown[:1]]
    title = f"Agreement with the paper's {about[0].table}" if about else "No road has a result"
    notes = [
        f"50 % agreement in sign is expected by chance. {CAVEAT} Method: {METHOD}." for one in about
    ]
    return Table("agreement", title, columns, lines, tuple(notes))


def _with_rows(roads: Sequence[TrainedRoad]) -> list[TrainedRoad]:
    return [road for road in roads if road.rows]


def _lines(road: TrainedRoad) -> list[AgreementLine]:
    found = road.found
    return [
        AgreementLine(road.label, "rows by accuracy", found.rows, None),
        AgreementLine(road.label, "steps by gain", found.gains, found.signs),
        AgreementLine(road.label, "steps by gain beyond MACs", found.trades, found.trade_signs),
    ]


def _signs(line: AgreementLine) -> str:
    signs = line.signs
    return f"{signs.equal} of {signs.count}" if signs else ""
