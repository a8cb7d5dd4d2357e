"""Columns of a test, and the table of every row against its parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from convnext_study.report.tables.formatting import (
    difference,
    interval,
    p_equals,
    p_value,
    plural,
    signed,
)
from convnext_study.report.tables.table import Column, Table, Tone
from convnext_study.results.compare import Comparison
from convnext_study.results.metric_spec import MetricSpec
from convnext_study.results.rows import ResultRow, shared_metric

if TYPE_CHECKING:
    from convnext_study.results.effects import RowTests

R = TypeVar("R")


def comparison_columns(
    test_of: Callable[[R], Comparison | None], metric: MetricSpec
) -> list[Column[R]]:
    """A metric's difference, its interval, p, Holm-adjusted p, and whether it is significant."""

    def value(row: R, name: str) -> Any:
        test = test_of(row)
        if test is None:
            return None
        return getattr(test if name in ("p_adjusted", "significant") else test.difference, name)

    def tone(row: R) -> Tone:
        return "faint" if value(row, "significant") is False else ""

    return [
        Column(
            "diff",
            ", ".join(filter(None, ("difference", metric.step_unit))),
            lambda row: value(row, "diff"),
            format=partial(signed, digits=metric.decimals),
        ),
        *decision_columns(value, metric.decimals, tone),
    ]


def decision_columns(
    value: Callable[[R, str], Any],
    decimals: int,
    tone: Callable[[R], Tone] = lambda row: "",
    min_width: int = 0,
) -> list[Column[R]]:
    """``interval``, ``p``, ``p_adjusted`` and ``significant`` of a row, from ``value`` by name.

    ``min_width`` is for the columns that a narrow terminal leaves out.
    """

    def getter(name: str) -> Callable[[R], Any]:
        return lambda row: value(row, name)

    def yes_no(value: bool) -> str:
        return "yes" if value else "no"

    format_interval = partial(interval, digits=decimals)
    verdict = getter("significant")
    return [
        Column("ci", "95 % interval", getter("interval"), "interval", format_interval),
        Column("p", "p", getter("p"), format=p_value, min_width=min_width),
        Column("p_adjusted", "Holm p", getter("p_adjusted"), format=p_value),
        Column(
            "significant", "significant", verdict, "text", yes_no, tone=tone, min_width=min_width
        ),
    ]


def difference_in_words(test: Comparison) -> str:
    """``+0.33 points, 95 % interval −0.80 to +1.46, p = 0.688``, for this comparison alone."""
    diff, metric = test.difference, test.metric
    return (
        f"{difference(diff.diff, metric)}, 95 % interval "
        f"{interval(diff.interval, metric.decimals)}, {p_equals(diff.p)}"
    )


def sentence(test: Comparison) -> str:
    """The same with Holm's p, the verdict, and the method."""
    diff, metric = test.difference, test.metric
    if test.significant is None or test.p_adjusted is None:
        return (
            f"{difference(diff.diff, metric)}, 95 % interval "
            f"{interval(diff.interval, metric.decimals)} for another choice of test images: not "
            f"tested, since one seed says nothing about others ({diff.method})"
        )
    adjusted = ""
    if test.family > 1:
        adjusted = (
            f"; Holm-adjusted {p_equals(test.p_adjusted)} over {plural(test.family, 'comparison')}"
        )
    verdict = "significant" if test.significant else "not significant"
    return f"{difference_in_words(test)}{adjusted}: {verdict} ({diff.method}; {test.scope})"


def differences_table(
    rows: Sequence[ResultRow], tests: RowTests, ids: Mapping[str, str], *, pooled: bool = False
) -> Table[ResultRow] | None:
    """Every row against its parent, by the primary test or the pooled one, without its verdict;
    None where nothing could be compared."""
    labels, metric = {row.name: row.label for row in rows}, shared_metric(rows)
    by_row = tests.pooled if pooled else tests.primary
    columns: list[Column[ResultRow]] = [
        Column("label", "step", kind="text"),
        Column("parent", "against", lambda row: labels.get(row.parent or "", row.parent), "text"),
        *comparison_columns(lambda row: by_row.get(row.name), metric),
    ]
    tested = [row for row in rows if row.name in by_row]
    if not tested:
        return None
    name = "differences"
    title = "Every row against the previous one; significant: Holm-adjusted p of 0.05 or less"
    if pooled:  # only the primary test decides what is significant
        columns, name = columns[:-1], "differences_pooled"
        title = "The same differences with a standard deviation pooled over all rows"
    notes = [] if metric.higher_is_better else [f"A lower {metric.label} is better."]
    return Table(name, title, columns, tested, tuple(notes), link=lambda row: ids.get(row.name))
