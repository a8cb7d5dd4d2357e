"""Columns of a test, and the table of every row against the one before it."""

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
    """Difference of a metric, its interval, p and Holm-adjusted p, and what the last decides."""

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
    """``interval``, ``p``, ``p_adjusted`` and ``significant`` of a row, each found by its name.

    ``min_width`` is of the columns that a narrow terminal leaves out.
    """

    def of(name: str) -> Callable[[R], Any]:
        return lambda row: value(row, name)

    def yes_no(value: bool) -> str:
        return "yes" if value else "no"

    between = partial(interval, digits=decimals)
    decided = of("significant")
    return [
        Column("ci", "95 % interval", of("interval"), "interval", between),
        Column("p", "p", of("p"), format=p_value, min_width=min_width),
        Column("p_adjusted", "Holm p", of("p_adjusted"), format=p_value),
        Column(
            "significant", "significant", decided, "text", yes_no, tone=tone, min_width=min_width
        ),
    ]


def difference_in_words(test: Comparison) -> str:
    """``+0.33 points, 95 % interval −0.80 to +1.46, p = 0.688``, all of this comparison alone."""
    found, metric = test.difference, test.metric
    return (
        f"{difference(found.diff, metric)}, 95 % interval "
        f"{interval(found.interval, metric.decimals)}, {p_equals(found.p)}"
    )


def sentence(test: Comparison) -> str:
    """The same with Holm's p, what it decides, and how that was found."""
    found, metric = test.difference, test.metric
    if test.significant is None or test.p_adjusted is None:
        return (
            f"{difference(found.diff, metric)}, 95 % interval "
            f"{interval(found.interval, metric.decimals)} for another choice of test images: not "
            f"tested, since one seed tells nothing of another ({found.method})"
        )
    adjusted = ""
    if test.family > 1:
        adjusted = (
            f"; Holm-adjusted {p_equals(test.p_adjusted)} over {plural(test.family, 'comparison')}"
        )
    decided = "significant" if test.significant else "not significant"
    return f"{difference_in_words(test)}{adjusted}: {decided} ({found.method}; {test.scope})"


def differences_table(
    rows: Sequence[ResultRow], tests: RowTests, ids: Mapping[str, str], *, pooled: bool = False
) -> Table[ResultRow] | None:
    """Every row against its parent by the primary test, or by the pooled one, which decides
    nothing; None where nothing could be compared."""
    labels, metric = {row.name: row.label for row in rows}, shared_metric(rows)
    found = tests.pooled if pooled else tests.primary
    columns: list[Column[ResultRow]] = [
        Column("label", "step", kind="text"),
        Column("parent", "against", lambda row: labels.get(row.parent or "", row.parent), "text"),
        *comparison_columns(lambda row: found.get(row.name), metric),
    ]
    tested = [row for row in rows if row.name in found]
    if not tested:
        return None
    name = "differences"
    title = "Every row against the one before it; significant: Holm-adjusted p of 0.05 or less"
    if pooled:  # `significant` is the primary test's word
        columns, name = columns[:-1], "differences_pooled"
        title = "The same differences with a standard deviation pooled over all rows"
    notes = [] if metric.higher_is_better else [f"A lower {metric.label} is better."]
    return Table(name, title, columns, tested, tuple(notes), link=lambda row: ids.get(row.name))
