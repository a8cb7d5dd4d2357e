"""Charts for the page: training curves, and accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from convnext_study.records import Epoch, Record
from convnext_study.results.report import formats
from convnext_study.results.report.gather import Study
from convnext_study.results.report.svg import Scale, polyline, tag, ticks
from convnext_study.results.report.tables.results import is_side
from convnext_study.results.summary import Row

_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 30, 40
_POINTS = 90  # of a curve that are drawn; the last one always is

QUANTITIES: tuple[tuple[str, Callable[[Epoch], float]], ...] = (
    ("training loss", lambda line: line.loss),
    ("validation loss", lambda line: line.val_loss),
    ("top-1 accuracy, %", lambda line: line.top1),
)


@dataclass(frozen=True)
class Curve:
    """One run in a chart: how it is drawn, and what it says when pointed at."""

    record: Record
    kind: str
    tip: str
    group: str | None = None


def curves(found: Sequence[Curve]) -> list[Markup]:
    """A chart for each of `QUANTITIES`; none where no run has an epoch."""
    lines = [one for one in found if one.record.epochs]
    if not lines:
        return []
    return [_curve_chart(lines, name, value) for name, value in QUANTITIES]


def step_curves(study: Study, row: Row) -> list[Markup]:
    """The runs of a row, over those of the row it is compared with."""
    found = []
    for name, kind in ((row.parent, "before"), (row.name, "after")):
        for record in study.records(name) if name in study.groups and name else []:
            found.append(_curve(study, record, kind))
    return curves(found)


def all_curves(study: Study, ids: dict[str, str]) -> list[Markup]:
    """Every run of the study, coloured from the first row to the last."""
    found = []
    last = max(len(study.rows) - 1, 1)
    for place, row in enumerate(study.rows):
        for record in study.records(row.name):
            found.append(_curve(study, record, f"c{round(7 * place / last)}", ids[row.name]))
    return curves(found)


def _curve(study: Study, record: Record, kind: str, group: str | None = None) -> Curve:
    state = "" if record.status == "done" else " unfinished"
    label = next(row.label for row in study.rows if row.name == record.run.name)
    last = record.epochs[-1] if record.epochs else None
    end = f"\nepoch {last.epoch}: {last.top1:.2f} %" if last else ""
    return Curve(record, kind + state, f"{label}, seed {record.run.seed}{end}", group)


def _curve_chart(lines: Sequence[Curve], name: str, value: Callable[[Epoch], float]) -> Markup:
    drawn = [(line, _thinned(line.record.epochs, value)) for line in lines]
    points = [point for _, line in drawn for point in line]
    epochs = max(line.record.epochs[-1].epochs for line in lines)
    low, high = _limits([y for _, y in points], share="%" in name)
    x = Scale(0, epochs, _LEFT, _WIDTH - _RIGHT)
    y = Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    paths = []
    for line, values in drawn:
        at = [(x(epoch), y(min(max(one, low), high))) for epoch, one in values]
        if len(at) == 1:
            at = [at[0], (at[0][0] + 2, at[0][1])]
        paths.append(
            polyline(at, class_=f"curve {line.kind}", data_tip=line.tip, data_row=line.group)
        )
    return _chart(name, "epoch", (x, y), paths)


def _thinned(lines: Sequence[Epoch], value: Callable[[Epoch], float]) -> list[tuple[float, float]]:
    """At most about `_POINTS` of the epochs; what is not a number is left out."""
    every = max(1, math.ceil(len(lines) / _POINTS))
    kept = [line for place, line in enumerate(lines) if (len(lines) - 1 - place) % every == 0]
    found = [(float(line.epoch), value(line)) for line in kept]
    return [point for point in found if math.isfinite(point[1])]


def _limits(values: Sequence[float], *, share: bool) -> tuple[float, float]:
    """What the axis shows. A loss that shoots up early may leave it, at the top."""
    if not values:
        return 0.0, 1.0
    if share:
        low, high = min(values), max(values)
    else:
        ranked = sorted(values)
        low, high = 0.0, ranked[int(0.985 * (len(ranked) - 1))] * 1.05
    return low, high if high > low else low + 1


def _chart(title: str, unit: str, scales: tuple[Scale, Scale], parts: Sequence[Markup]) -> Markup:
    """Title, axes and ticks around what is drawn."""
    x, y = scales
    frame = [tag("text", title, x=_LEFT, y=16, class_="title")]
    for value in ticks(y.low, y.high):
        at = y(value)
        frame.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        frame.append(
            tag("text", f"{value:g}", x=_LEFT - 6, y=at + 4, class_="tick", text_anchor="end")
        )
    for value in ticks(x.low, x.high):
        at = x(value)
        words = f"{value:g}"
        frame.append(tag("text", words, x=at, y=_HEIGHT - 22, class_="tick", text_anchor="middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    frame.append(tag("text", unit, x=middle, y=_HEIGHT - 5, class_="tick", text_anchor="middle"))
    return tag(
        "svg",
        *frame,
        *parts,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="chart",
        role="img",
        aria_label=f"{title} against {unit}; the numbers are in the tables",
    )


COSTS: tuple[tuple[str, str], ...] = (
    ("MACs", "macs"),
    ("parameters, 10⁶", "params"),
    ("training images/s", "images_per_s"),
)


def cost_charts(study: Study, ids: dict[str, str]) -> list[Markup]:
    """Accuracy against each cost; points are numbered as the rows of the table."""
    made = []
    for name, field in COSTS:
        rows = [row for row in study.done if getattr(row, field) is not None]
        if len({getattr(row, field) for row in rows}) > 1:
            made.append(_cost_chart(study, rows, name, field))
    return made


def _cost_chart(study: Study, rows: list[Row], name: str, field: str) -> Markup:
    factor = {"macs": 1.0, "params": 1e-6, "images_per_s": 1.0}[field]
    unit = name
    if field == "macs":
        giga = max(row.macs or 0 for row in rows) >= 1e9
        factor, unit = (1e-9, "MACs, 10⁹") if giga else (1e-6, "MACs, 10⁶")
    costs = {row.name: getattr(row, field) * factor for row in rows}
    x = _padded(list(costs.values()), _LEFT, _WIDTH - _RIGHT)
    y = _padded([row.top1 or 0.0 for row in rows], _HEIGHT - _BOTTOM, _TOP)
    at = {row.name: (x(costs[row.name]), y(row.top1 or 0.0)) for row in rows}
    parts = [polyline([at[row.name] for row in rows if row.adopted], class_="way thin")]
    places = {row.name: place for place, row in enumerate(study.rows, 1)}
    for row in rows:
        cx, cy = at[row.name]
        kind = "point side" if is_side(row) else "point"
        words = f"{places[row.name]}. {row.label}\ntop-1 {formats.top1(row)} %\n{unit}: "
        tip = words + formats.plain(costs[row.name], 0 if field == "images_per_s" else 2)
        dot = tag("circle", cx=cx, cy=cy, r=7.5, class_=kind)
        digit = tag(
            "text", str(places[row.name]), x=cx, y=cy + 3, class_="digit", text_anchor="middle"
        )
        parts.append(tag("g", dot, digit, class_="mark", data_tip=tip))
    return _chart("top-1 accuracy, %", unit, (x, y), parts)


def _padded(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or max(abs(high) * 0.05, 0.5)
    return Scale(low - room, high + room, start, end)
