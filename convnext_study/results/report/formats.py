"""Numbers as a reader sees them: one way to write each kind, on the page and in the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convnext_study.results.statistics import Comparison, Interval
from convnext_study.results.summary import Row
from convnext_study.results.table import macs_unit

NBSP = "\u00a0"


def signed(value: float | None, digits: int = 2) -> str:
    """``+0.33`` and ``−1.16``, with a minus sign and not a hyphen; no zero is negative."""
    return "" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def interval(found: Interval | tuple[float, float] | None) -> str:
    """Both ends of an interval of a difference."""
    if found is None:
        return "unknown"
    if math.isinf(found[0]):
        return "unbounded"
    return f"{signed(found[0])} to {signed(found[1])}"


def p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def plain(value: float | None, digits: int = 2, factor: float = 1.0) -> str:
    """A number with thousands set apart, or nothing."""
    return "" if value is None else f"{value * factor:,.{digits}f}"


def top1(row: Row) -> str:
    """``97.10 ± 0.20``, the deviation over seeds where there are several."""
    if row.top1 is None:
        return row.state
    return f"{row.top1:.2f}" + (f" ± {row.sd:.2f}" if row.sd is not None else "")


def seeds(row: Row) -> str:
    done = len(row.seeds)
    return str(done) if done == row.seeds_asked else f"{done} of {row.seeds_asked}"


def count(value: int | float, rows: Sequence[Row]) -> str:
    """MACs in the study's unit: ``1.83 M``."""
    unit, letter = macs_unit(rows)
    return f"{value / unit:,.2f}{NBSP}{letter}"


def duration(seconds: float | None) -> str:
    """``43 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    if seconds is None:
        return ""
    for unit, size, digits in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f}{NBSP}{unit}"
    return f"{seconds:.0f}{NBSP}s"


def comparison(found: Comparison) -> str:
    """``+0.33 points, 95 % interval −0.80 to +1.46, p = 0.688``, all of this comparison alone."""
    return (
        f"{signed(found.difference.points)} points, {100 * (1 - found.alpha):g} % interval "
        f"{interval(found.difference.interval)}, {p_value(found.difference.p)}"
    )


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
