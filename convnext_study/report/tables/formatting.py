"""Numbers as text: one format for each kind, in tables, figures and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from convnext_study.results.metric_spec import MetricSpec

Format = Callable[[Any], str]


class Prefix(NamedTuple):
    """An SI prefix: the divisor of values, and its letter."""

    factor: float
    letter: str


MEGA, GIGA = Prefix(1e6, "M"), Prefix(1e9, "G")


def common_prefix(values: Iterable[float | None]) -> Prefix:
    """One prefix for counts, such as MACs, that are shown together."""
    largest = max((abs(value) for value in values if value is not None), default=0)
    return GIGA if largest >= GIGA.factor else MEGA


def with_prefix(value: float, prefix: Prefix | None = None) -> str:
    """``1.83 M``, with a prefix that suits its size if none is given."""
    factor, letter = prefix or common_prefix([value])
    return f"{number(value / factor)} {letter}"


def number(value: float | None, digits: int = 2) -> str:
    """With thousands separators, a minus sign (no hyphen) and no negative zero; "" for None."""
    if value is None or math.isinf(value):
        return ""
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """``+0.33`` and ``−1.16``."""
    return "" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def marked(value: float | None, significant: bool | None, digits: int = 2) -> str:
    """`signed`, with an asterisk where it is significant."""
    return signed(value, digits) + ("*" if significant else "")


def digits(count: int) -> Format:
    """`number` with this many decimals."""
    return partial(number, digits=count)


def significant_digits(value: float) -> str:
    """Three significant digits: ``3.84e+11``."""
    return f"{value:.3g}"


def count(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def percent(share: float) -> str:
    """A share of 1 as ``80 %``."""
    return f"{number(100 * share, 0)} %"


def mean_std(mean: float, std: float | None, digits: int = 2) -> str:
    """``97.10 ± 0.20``, with the standard deviation where there is one."""
    return number(mean, digits) + (f" ± {number(std, digits)}" if std is not None else "")


def interval(ends: Sequence[float] | None, digits: int = 2) -> str:
    """Both ends of an interval of a difference."""
    if ends is None:
        return "unknown"
    if math.isinf(ends[0]):
        return "unbounded"
    return f"{signed(ends[0], digits)} to {signed(ends[1], digits)}"


def level_interval(ends: Sequence[float], digits: int = 2) -> str:
    """Both ends of the interval of a value (not of a difference): ``62.94 to 67.21``."""
    return f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def with_unit(value: float, metric: MetricSpec) -> str:
    """A metric's value: ``97.10 %``."""
    return f"{number(value, metric.decimals)} {metric.unit}".rstrip()


def difference(value: float, metric: MetricSpec) -> str:
    """A difference of a metric's values: ``+0.33 points``."""
    return f"{signed(value, metric.decimals)} {metric.step_unit}".rstrip()


def p_value(value: float) -> str:
    """``0.030``, for a column with the heading p."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float | None) -> str:
    """``p = 0.030``, for a sentence; "" where nothing was tested."""
    if value is None:
        return ""
    return f"p {p_value(value)}" if value < 0.001 else f"p = {p_value(value)}"


def hours(seconds: float | None) -> str:
    """``0.12 s``, ``43 s``, ``12 min``, ``3.4 h``; never days, since GPU hours are summed."""
    if seconds is None:
        return ""
    for size, unit, digits in ((3600, "h", 1), (60, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.{digits}f} {unit}"
    return f"{seconds:.2g} s" if 0 < seconds < 1 else f"{seconds:.0f} s"


def duration(seconds: float | None) -> str:
    """As `hours`, and ``2.1 d`` from a day and a half."""
    day = 86400
    return f"{seconds / day:.1f} d" if seconds and seconds >= 1.5 * day else hours(seconds)


def size(count: float) -> str:
    """Bytes in powers of 1000: ``1.83 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def setting(value: Any) -> str:
    """A setting of a recipe as text: ``yes``, ``none``, ``0.9, 0.999``."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) else ", ".join(map(str, value))


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def plural(number: int, word: str) -> str:
    """A number and its noun, as ``1 run`` or ``2 runs``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def shorten(text: str, length: int) -> str:
    """The text in at most ``length`` characters, truncated with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
