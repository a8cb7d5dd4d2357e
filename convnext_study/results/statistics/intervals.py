"""Means over seeds and differences between them, with intervals, t tests and Holm's correction;
and two factors crossed.

Accuracies are counts of images: with 599 images, one image is 0.17 points. Where a few seeds happen
to give equal counts their standard deviation is zero, which is never true, and a t test would call
any difference certain. ``resolution`` (points per image; 0 for a metric that is no count) is the
least standard deviation assumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, median, variance
from typing import NamedTuple

from convnext_study.errors import UserError

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Both ends, in the unit of the value that it covers."""

    low: float
    high: float


@dataclass(frozen=True)
class PooledStd:
    """A standard deviation, the degrees of freedom behind it, and where it was measured."""

    std: float
    df: float
    source: str


@dataclass(frozen=True)
class Difference:
    """A difference (child minus parent), in the metric's unit, its interval and two-sided p.

    ``df`` is of the t distribution used, ``error`` the standard error. An unbounded interval with
    p = 1 means that the noise was not measured; ``p`` and ``df`` are None where nothing was tested.
    """

    diff: float
    interval: Interval
    p: float | None
    df: float | None
    method: str
    error: float = 0.0


def wilson_interval(right: float, images: float, *, df: float = math.inf) -> Interval:
    """Wilson's score interval, in percent, of the accuracy of one run (Wilson 1927).

    ``right`` is the number of correct images, which may be fractional for a mean over runs, as may
    ``images``, since grouped images count as fewer. It covers the choice of test images alone:
    another seed is another network.
    """
    z = t_quantile(df, CONFIDENCE)
    share, weight = right / images, z * z / images
    centre = share + weight / 2
    half = z * math.sqrt(share * (1 - share) / images + weight / (4 * images))
    low, high = ((centre + sign * half) / (1 + weight) for sign in (-1, 1))
    return Interval(100 * max(0.0, low), 100 * min(1.0, high))


def welch_difference(
    child: Sequence[float],
    parent: Sequence[float],
    *,
    resolution: float = 0.0,
) -> Difference:
    """The difference of two means over two or more seeds each, with Welch's t test (Welch 1947)."""
    variances = [max(variance(values), resolution**2) / len(values) for values in (child, parent)]
    error, df = added_error(variances, [len(child) - 1, len(parent) - 1])
    method = f"Welch's t test on {len(child)} and {len(parent)} seeds"
    return t_difference(fmean(child) - fmean(parent), error, df, method)


def pool_std(
    rows: Iterable[Sequence[float]], source: str, *, resolution: float = 0.0
) -> PooledStd | None:
    """The standard deviation between seeds, pooled over rows; None while no row has two seeds.

    It assumes the same standard deviation in every row, as an analysis of variance does.
    """
    several = [row for row in rows if len(row) > 1]
    df = sum(len(row) - 1 for row in several)
    if not df:
        return None
    squares = sum(variance(row) * (len(row) - 1) for row in several)
    return PooledStd(max(math.sqrt(squares / df), resolution), df, source)


def homogeneity(rows: Iterable[Sequence[float]]) -> float | None:
    """p of Levene's test about medians (Brown and Forsythe 1974) that all rows have one standard
    deviation; None for fewer than two rows with three seeds, or values that are all alike."""
    several = [row for row in rows if len(row) > 2]
    if len(several) < 2 or all(len(set(row)) == 1 for row in several):
        return None
    from scipy.special import fdtrc  # scipy.stats, which has the test, takes 0.7 s to import

    away = [[abs(value - median(row)) for value in row] for row in several]
    grand_mean, means = fmean(chain.from_iterable(away)), [(row, fmean(row)) for row in away]
    between = sum(len(row) * (mean - grand_mean) ** 2 for row, mean in means)
    within = sum((value - mean) ** 2 for row, mean in means for value in row)
    dfs = len(away) - 1, sum(map(len, away)) - len(away)
    ratio = between / within if within else math.inf if between else 0.0
    return float(fdtrc(*dfs, ratio * dfs[1] / dfs[0]))


def pooled_difference(
    child: Sequence[float],
    parent: Sequence[float],
    std: PooledStd,
) -> Difference:
    """The difference of two means, with a standard deviation pooled over the whole study.

    With few seeds this has far more power than each pair's own standard deviation; it assumes the
    same one in every row. One seed per row is enough for it.
    """
    error = std.std * math.sqrt(1 / len(child) + 1 / len(parent))
    method = (
        f"t test on {len(child)} and {len(parent)} seeds, "
        f"with the standard deviation between seeds pooled over {std.source}"
    )
    return t_difference(fmean(child) - fmean(parent), error, std.df, method)


def added_error(variances: Sequence[float], dfs: Sequence[float]) -> tuple[float, float]:
    """The root of a sum of variances, and its degrees of freedom (Satterthwaite 1946)."""
    total = sum(variances)
    denominator = sum(part**2 / df for part, df in zip(variances, dfs, strict=True))
    return math.sqrt(total), total**2 / denominator if denominator else math.inf


def t_difference(diff: float, error: float, df: float, method: str) -> Difference:
    """The t test of a difference against zero, from its standard error (normal if df is inf)."""
    from scipy.special import ndtr, stdtr

    if error == 0:
        return Difference(diff, Interval(-math.inf, math.inf), 1.0, df, method)
    half_width = t_quantile(df, CONFIDENCE) * error
    interval = Interval(diff - half_width, diff + half_width)
    tail = -abs(diff / error)
    p = 2 * float(ndtr(tail) if math.isinf(df) else stdtr(df, tail))
    return Difference(diff, interval, p, df, method, error)


def t_quantile(df: float, confidence: float) -> float:
    """How many standard errors an interval reaches to each side (normal if df is inf)."""
    from scipy.special import ndtri, stdtrit

    upper = (1 + confidence) / 2
    return float(ndtri(upper) if math.isinf(df) else stdtrit(df, upper))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p values, in the order given (Holm 1979).

    The probability that any true zero is at or below alpha is at most alpha, however the tests
    depend on each other.
    """
    corrected = [1.0] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class Factor:
    """A source of variation: its share of all variation, its F statistic and p."""

    name: str
    share: float
    f: float
    p: float
    df: int


@dataclass(frozen=True)
class TwoWay:
    """Rows, columns and their interaction; ``std`` is the deviation within cells, with ``df``."""

    rows: Factor
    columns: Factor
    interaction: Factor
    std: float
    df: int


def two_way(
    cells: Sequence[Sequence[Sequence[float]]],
    names: tuple[str, str] = ("rows", "columns"),
    *,
    resolution: float = 0.0,
) -> TwoWay:
    """A balanced two-way analysis of variance with interaction, both factors fixed (Fisher).

    Args:
        cells: (rows, columns, seeds).
        names: of the two factors.
        resolution: the least standard deviation within cells that is assumed, as elsewhere.

    Raises UserError for cells with different numbers of seeds, or fewer than two.
    """
    import numpy as np
    from scipy.special import fdtrc

    sizes = {len(cell) for row in cells for cell in row}
    shapes = {len(row) for row in cells}
    if len(sizes) != 1 or len(shapes) != 1 or min(sizes) < 2 or min(len(cells), *shapes) < 2:
        raise UserError(
            "a two-way table needs at least two rows, two columns, and two seeds in every cell"
        )
    table = np.asarray(cells, dtype=float)
    a, b, n = table.shape
    mean, means = table.mean(), table.mean(axis=2)
    of_rows, of_columns = means.mean(axis=1), means.mean(axis=0)
    squares = {
        names[0]: (float(b * n * ((of_rows - mean) ** 2).sum()), a - 1),
        names[1]: (float(a * n * ((of_columns - mean) ** 2).sum()), b - 1),
        "interaction": (
            float(n * ((means - of_rows[:, None] - of_columns + mean) ** 2).sum()),
            (a - 1) * (b - 1),
        ),
    }
    within = float(((table - means[..., None]) ** 2).sum())
    df = a * b * (n - 1)
    noise = max(within / df, resolution**2)
    total = within + sum(square for square, _ in squares.values())

    def factor(name: str) -> Factor:
        square, factor_df = squares[name]
        f = square / factor_df / noise if noise else 0.0
        p = float(fdtrc(factor_df, df, f)) if noise else 1.0
        return Factor(name, square / total if total else 0.0, f, p, factor_df)

    rows, columns = (factor(name) for name in names)
    return TwoWay(rows, columns, factor("interaction"), float(np.sqrt(noise)), df)
