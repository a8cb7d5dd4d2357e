"""What figures share with the table of results."""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.results.report.tables.formatting import Prefix, common_prefix
from convnext_study.results.report.tables.results import PAPER_LABEL
from convnext_study.results.summary import Row

__all__ = ["PAPER_LABEL", "macs_unit"]


def macs_unit(rows: Sequence[Row]) -> Prefix:
    """The unit in which a study's MACs are written, one for all of its rows."""
    return common_prefix(row.macs for row in rows)
