"""The cost of every row of a road map, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convnext_study.report.tables.formatting import digits
from convnext_study.report.tables.table import Column, Table
from convnext_study.results.paper import PAPER_METRIC
from convnext_study.roadmap import get_roadmap

_Row = dict[str, Any]  # from `cost.table`


def cost_tables(rows: Sequence[_Row]) -> list[Table[_Row]]:
    """A table per road map in ``rows``, with errata marked and explained below it."""
    regimes = dict.fromkeys(row["regime"] for row in rows)
    return [_table([row for row in rows if row["regime"] == regime]) for regime in regimes]


def _table(rows: Sequence[_Row]) -> Table[_Row]:
    road = get_roadmap(rows[0]["regime"])
    differing = [row for row in rows if row["matches_paper"] is False]

    def mark(row: _Row) -> str:
        if row["matches_paper"] is None:
            return ""
        return "=" if row["matches_paper"] else f"[{differing.index(row) + 1}]"

    columns: list[Column[_Row]] = [
        Column("step", "step", kind="text"),
        Column("macs", "MACs", format=digits(4), prefixed=True),
        Column("paper_gflops", "paper, GFLOPs"),
        Column("matches_paper", "", mark, "text"),
        Column("paper_top1", f"paper, {PAPER_METRIC.heading}"),
        Column("params", "params", format=digits(3), prefixed=True),
        Column("activations", "activations", format=digits(3), prefixed=True),
    ]
    unknown = "differs from the printed figure for an unknown reason."
    notes = [_legend(rows)] if road.published else []
    notes += [f"{mark(row)} {row['step']}: {row['erratum'] or unknown}" for row in differing]
    return Table("cost", f"{road.regime}: {road.title}", columns, rows, tuple(notes))


def _legend(rows: Sequence[_Row]) -> str:
    compared = [row["matches_paper"] for row in rows if row["matches_paper"] is not None]
    if not compared:
        return "The paper's figures are for 224x224 and cannot be compared with these MACs."
    return (
        f"= MACs, to two decimals, equal the paper's figure: {sum(compared)} of {len(compared)} "
        "rows. The paper writes GFLOPs for 1e9 MACs."
    )
