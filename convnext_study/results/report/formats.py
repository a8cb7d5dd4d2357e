"""What figures and words of the report write of rows and comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from convnext_study.results.report.tables.comparison import difference_in_words as comparison
from convnext_study.results.report.tables.formatting import (
    common_prefix,
    duration,
    interval,
    listed,
    number,
    plural,
    shorten,
    signed,
    with_prefix,
)
from convnext_study.results.report.tables.formatting import p_equals as p_value
from convnext_study.results.report.tables.results import accuracy as top1
from convnext_study.results.report.tables.results import seeds
from convnext_study.results.summary import Row

__all__ = [
    "comparison",
    "count",
    "duration",
    "interval",
    "listed",
    "p_value",
    "plain",
    "plural",
    "seeds",
    "shorten",
    "signed",
    "top1",
]


def plain(value: float | None, digits: int = 2, factor: float = 1.0) -> str:
    return number(None if value is None else value * factor, digits)


def count(value: int | float, rows: Sequence[Row]) -> str:
    """MACs in the study's unit: ``1.83 M``."""
    return with_prefix(value, common_prefix(row.macs for row in rows))
