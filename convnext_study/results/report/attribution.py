"""The part of the page that says what steps are worth: bars, tables and words."""

from __future__ import annotations

from typing import Any

from convnext_study.results.attribution import Shapley
from convnext_study.results.report import formats
from convnext_study.results.report.charts import bar_chart
from convnext_study.results.report.figures.attribution import Bar, Panel
from convnext_study.results.report.worth import Change, Worth
from convnext_study.results.report.worth_tables import worth_tables
from convnext_study.results.table import macs_unit


def worth_view(worth: Worth) -> dict[str, Any]:
    """All that the page shows of one family of networks."""
    return {
        "name": worth.name,
        "words": _words(worth),
        "rows": [[bar_chart(panel) for panel in row] for row in panels(worth)],
        "tables": worth_tables(worth),
    }


def panels(worth: Worth) -> list[list[Panel]]:
    """Points and MACs beside each other, for each way of asking."""
    found = []
    for title, changes in (
        ("Lost without the step, points of top-1", worth.without),
        ("Gained by the step alone, points of top-1", worth.alone),
    ):
        if changes:
            macs = [(one.label, float(one.macs)) for one in changes if one.macs is not None]
            points = Panel(title, [_change_bar(one) for one in changes])
            found.append([points, *_macs("The same in MACs", macs, worth)])
    if worth.shares:
        points = Panel("Shapley value, points of top-1", _share_bars(worth, worth.shares))
        costs = worth.macs.shares if worth.macs else {}
        macs = [(worth.labels[step], costs[step].value) for step in worth.order if step in costs]
        found.append([points, *_macs("Shapley value, MACs", macs, worth)])
    return found


def _macs(title: str, values: list[tuple[str, float]], worth: Worth) -> list[Panel]:
    unit, letter = macs_unit(worth.rows)
    made = []
    for label, value in values:
        text = f"{formats.signed(value / unit)} {letter}"
        made.append(Bar(label, value, text, detail=text))
    return [Panel(title, made, "grey")] if made else []


def _change_bar(one: Change) -> Bar:
    difference, told = one.comparison.difference, one.comparison.distinguishable
    text = f"{'' if told else '~'}{formats.signed(difference.points)}"
    corrected = formats.p_value(one.comparison.p_corrected)
    detail = f"{text} ({formats.interval(difference.interval)}, Holm {corrected})"
    return Bar(one.label, difference.points, text, difference.interval, told, detail)


def _share_bars(worth: Worth, shares: Shapley) -> list[Bar]:
    made = []
    for step in worth.order:
        share = shares.shares[step]
        text = formats.signed(share.value)
        detail = f"{text} ({formats.interval(share.interval)})"
        told = share.interval is not None and share.interval.leaves_zero_out
        made.append(Bar(worth.labels[step], share.value, text, share.interval, told, detail))
    return made


def _how_tested(worth: Worth) -> str:
    if worth.deviation is None:
        return "each pair tested by its own runs"
    between = worth.deviation
    return (
        f"tested with the deviation between seeds ({between.points:.2f} points, pooled over "
        f"{between.source}, {between.freedom:g} degrees of freedom)"
    )


def _words(worth: Worth) -> list[str]:
    said = []
    if worth.without:
        said.append(
            "Without the step: the last network against itself with the step left out, "
            f"{_how_tested(worth)} and corrected over the steps (Holm). Filled bars can be told "
            "from noise, open ones (~) cannot."
        )
    if worth.alone:
        said.append(
            "Alone: the base network with the one step against the base network, tested alike."
        )
    if worth.shares:
        said.append(
            f"Shapley values, {worth.shares.method}: what each step adds on average over all "
            f"orders. They add up to {formats.signed(worth.shares.total)} points, the difference "
            "between the two ends. Their intervals are not corrected for the number of steps; "
            "filled bars are those whose interval leaves zero out."
        )
    return said
