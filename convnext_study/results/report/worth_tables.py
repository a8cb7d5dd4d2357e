"""What steps are worth, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.results.attribution import Shapley
from convnext_study.results.report import formats
from convnext_study.results.report.tables import (
    Cell,
    Column,
    Table,
    figure,
    test_cells,
    test_columns,
    words,
)
from convnext_study.results.report.worth import Change, Worth
from convnext_study.results.summary import Row
from convnext_study.results.table import macs_unit


def worth_tables(worth: Worth) -> list[Table]:
    """Leave-one-out, add-one-in and Shapley values, those that there are."""
    made = (
        changes_table(worth.without, worth.rows, "leave_one_out"),
        changes_table(worth.alone, worth.rows, "add_one_in"),
        shapley_table(worth),
    )
    return [table for table in made if table]


def changes_table(changes: Sequence[Change], rows: Sequence[Row], name: str) -> Table | None:
    """Leave-one-out or add-one-in: what each step changes, in points and in MACs."""
    if not changes:
        return None
    columns = (Column("step", "step", numeric=False), *test_columns(""), Column("macs", "MACs"))
    unit, letter = macs_unit(rows)
    made = []
    for one in changes:
        macs = None if one.macs is None else f"{formats.signed(one.macs / unit)} {letter}"
        made.append([words(one.label), *test_cells(one.comparison), figure(one.macs, macs)])
    captions = {
        "leave_one_out": "What the end of the road has more than itself without the step",
        "add_one_in": "What each step alone adds to the base network",
    }
    return Table(name, captions[name], columns, made)


def shapley_table(worth: Worth) -> Table | None:
    """Shapley values of accuracy and of MACs."""
    if worth.shares is None:
        return None
    unit, letter = macs_unit(worth.rows)
    columns = (
        Column("step", "step", numeric=False),
        Column("points", "points"),
        Column("interval", "95 % interval"),
        Column("macs", f"MACs, {letter}"),
    )
    made = []
    for step in worth.order:
        share = worth.shares.shares[step]
        macs = worth.macs.shares[step].value if worth.macs else None
        low = share.interval.low if share.interval else None
        made.append(
            [
                words(worth.labels[step]),
                figure(share.value, formats.signed(share.value)),
                Cell(formats.interval(share.interval), low),
                figure(macs, formats.signed(None if macs is None else macs / unit)),
            ]
        )
    made.append(_total(worth.shares, worth.macs, unit))
    return Table("shapley", f"Shapley value of each step: {worth.shares.method}", columns, made)


def _total(shares: Shapley, macs: Shapley | None, unit: float) -> list[Cell]:
    total = macs.total if macs else None
    return [
        words("all steps together"),
        figure(shares.total, formats.signed(shares.total)),
        Cell(""),
        figure(total, formats.signed(None if total is None else total / unit)),
    ]
