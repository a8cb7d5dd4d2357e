"""Horizontal bars about zero with their intervals, as an SVG for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from convnext_study.results.report import formats
from convnext_study.results.report.svg import Scale, tag


@dataclass(frozen=True)
class Bar:
    """A bar from zero, the ends of its interval, and its words. ``told`` fills it."""

    label: str
    value: float
    interval: tuple[float, float] | None
    text: str
    told: bool = True


def bars(title: str, found: Sequence[Bar], *, kind: str = "gain") -> Markup:
    """Horizontal bars about zero, labels above them: as readable on a phone as on a desk."""
    width, row, left, right = 420, 36, 8, 118
    ends = [0.0]
    for bar in found:
        ends += [bar.value, *(bar.interval or ())]
    finite = [end for end in ends if math.isfinite(end)]
    x = Scale(min(finite), max(finite), left, width - right)
    height = 30 + row * len(found)
    parts = [tag("text", title, x=left, y=16, class_="title")]
    parts.append(tag("line", x1=x(0), x2=x(0), y1=26, y2=height, class_="zero"))
    for place, bar in enumerate(found):
        parts += _bar(bar, 28 + row * place, x, (width, kind))
    spoken = "; ".join(f"{bar.label} {bar.text}" for bar in found)
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {width} {height}",
        class_="bars",
        role="img",
        aria_label=f"{title}: {spoken}",
    )


def _bar(bar: Bar, y: float, x: Scale, how: tuple[int, str]) -> Iterator[Markup]:
    width, kind = how
    yield tag("text", formats.shorten(bar.label, 44), x=8, y=y + 12, class_="label small")
    ends = sorted((x(0), x(bar.value)))
    fill = f"{kind} {'told' if bar.told else 'open'}"
    tip = f"{bar.label}\n{bar.text}"
    shape = tag(
        "rect", x=ends[0], y=y + 18, width=max(ends[1] - ends[0], 1), height=11, class_=fill
    )
    inside = [shape]
    if bar.interval and all(map(math.isfinite, bar.interval)):
        low, high = (x(end) for end in bar.interval)
        inside.append(tag("path", d=f"M{low:.1f} {y + 23.5}H{high:.1f}", class_="whisker"))
    yield tag("g", *inside, class_="mark", data_tip=tip)
    yield tag(
        "text",
        bar.text.partition(" (")[0],
        x=width - 4,
        y=y + 28,
        class_="num small",
        text_anchor="end",
    )
