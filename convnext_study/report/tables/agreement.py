"""Agreement with the paper as a table: a line for each road that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convnext_study.report.tables import formatting
from convnext_study.report.tables.table import Column, Table
from convnext_study.results.differences import RowTests
from convnext_study.results.grouping import group
from convnext_study.results.paper import Agreement, Share, agreement
from convnext_study.results.rows import ResultRow
from convnext_study.results.statistics.rank_agreement import Correlation
from convnext_study.results.summary import rows_and_tests
from convnext_study.runs.records import Record


@dataclass(frozen=True)
class AgreementLine:
    """A trained road: its rows that are done, in order, their tests, and how they agree."""

    label: str
    rows: Sequence[ResultRow]
    tests: RowTests
    found: Agreement

    @property
    def std(self) -> float | None:
        """The largest standard deviation between seeds of a row, in points."""
        return max((row.std for row in self.rows if row.std is not None), default=None)

    def significant(self, *, pooled: bool) -> str | None:
        """How many gains are, of how many tested, by one way of asking."""
        tests = self.tests.pooled if pooled else self.tests.plain
        return (
            f"{sum(one.significant for one in tests.values())} of {len(tests)}" if tests else None
        )


def line_of(label: str, regime: str, records: Sequence[Record]) -> AgreementLine:
    """The line of a road's records, under its own names. Rows without a result are left out."""
    rows, tests = rows_and_tests(group(records))
    done = [row for row in rows if row.value is not None]
    values = {row.name: row.value for row in done if row.value is not None}
    macs = {row.name: float(row.macs) for row in done if row.macs}
    whole = macs if len(macs) == len(values) else None
    return AgreementLine(label, done, tests, agreement(regime, values, macs=whole))


def agreement_table(lines: Sequence[AgreementLine]) -> Table[AgreementLine]:
    """The lines that have a result."""
    shown = [line for line in lines if line.rows]
    if not shown:
        return Table("agreement", "No road has a result", _COLUMNS, shown)
    about = shown[0].found
    title = f"Agreement with the paper's {about.table} of roads of ours"
    note = f"{about.caveat} Half of the signs is chance. Method: {about.method}."
    return Table("agreement", title, _COLUMNS, shown, (note,))


def _tau(key: str, heading: str, attribute: str) -> list[Column[AgreementLine]]:
    def one(line: AgreementLine) -> Correlation | None:
        found: Correlation | None = getattr(line.found, attribute)
        return found

    def text(line: AgreementLine) -> str:
        if (tau := one(line)) is None:
            return ""
        between = f" ({formatting.interval(tau.interval)})" if tau.interval else ""
        return formatting.signed(tau.tau) + between

    return [
        Column(key, heading, lambda line: tau.tau if (tau := one(line)) else None, cell=text),
        Column(
            f"{key}_interval",
            "95 %",
            lambda line: tau.interval if (tau := one(line)) else None,
            "interval",
            screen=False,
        ),
    ]


def _signs(key: str, heading: str, attribute: str) -> list[Column[AgreementLine]]:
    def one(line: AgreementLine) -> Share | None:
        found: Share | None = getattr(line.found, attribute)
        return found

    def share(line: AgreementLine) -> float | None:
        signs = one(line)
        return 100 * signs.equal / signs.count if signs else None

    def text(line: AgreementLine) -> str:
        if (signs := one(line)) is None:
            return ""
        between = formatting.interval(signs.interval, 0)
        return f"{signs.equal} of {signs.count}, {share(line):.0f} % ({between})"

    return [
        Column(key, heading, share, cell=text),
        Column(
            f"{key}_interval",
            "95 %",
            lambda line: signs.interval if (signs := one(line)) else None,
            "interval",
            screen=False,
        ),
    ]


_COLUMNS: list[Column[AgreementLine]] = [
    Column("road", "road", lambda line: line.label, "text"),
    Column("seeds", "seeds", lambda line: max(len(row.seeds) for row in line.rows), format=str),
    Column("first", "first row, %", lambda line: line.rows[0].value),
    Column("last", "last row, %", lambda line: line.rows[-1].value),
    Column("largest_std", "largest standard deviation", lambda line: line.std),
    Column("own", "significant, own seeds", lambda line: line.significant(pooled=False), "text"),
    Column("pooled", "pooled", lambda line: line.significant(pooled=True), "text"),
    *_tau("tau_rows", "tau of rows", "rows"),
    *_tau("tau_gains", "tau of gains", "gains"),
    *_signs("signs", "equal signs", "signs"),
    *_tau("tau_trades", "tau of gains beyond MACs", "trades"),
    *_signs("trade_signs", "equal signs beyond MACs", "trade_signs"),
]
