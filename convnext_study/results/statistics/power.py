"""How many seeds it takes to detect a difference of a given size."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import PooledStd, t_quantile

MOST_SEEDS = 100_000
POWER = 0.8  # the default probability that a study detects an effect
POINTS = "points"


@dataclass(frozen=True, kw_only=True)
class Power:
    """The number of ``seeds`` per network, of two, the power that it ``reached``, and the
    assumptions, in sentences."""

    seeds: int
    reached: float
    assumptions: str


def seeds_needed(
    effect: float,
    std: PooledStd,
    *,
    power: float = POWER,
    alpha: float = 0.05,
    tests: int = 1,
    unit: str = POINTS,
) -> Power:
    """The fewest seeds per network that detect a true difference of ``effect``.

    Args:
        effect: the difference to detect, in ``unit``, in either direction.
        std: between the seeds of one network, the same for both.
        power: the probability that a study of that size detects it.
        alpha: the rate of false alarms, over all ``tests`` together.
        tests: how many steps are tested together; each is tested at ``alpha / tests``, which is
            what Holm's method requires of its smallest p.
        unit: of the effect and the standard deviation: points of a percentage, or another.

    Raises UserError for numbers out of range, or where `MOST_SEEDS` is not enough.
    """
    if not (0 < alpha < power < 1 and tests >= 1):
        raise UserError(f"power {power:g} and alpha {alpha:g}: use 0 < alpha < power < 1")
    if not (math.isfinite(effect) and effect and std.std > 0):
        raise UserError(
            f"an effect of {f'{effect:g} {unit}'.rstrip()} at a standard deviation of "
            f"{std.std:g}: both must be above 0"
        )

    def reached(seeds: int) -> float:
        return power_of(seeds, effect, std.std, alpha=alpha / tests)

    seeds = 2 + bisect_left(range(2, MOST_SEEDS + 1), power, key=reached)
    if seeds > MOST_SEEDS:
        raise UserError(
            f"{f'{effect:g} {unit}'.rstrip()} would take more than {MOST_SEEDS} seeds: choose a "
            "larger effect"
        )
    return Power(
        seeds=seeds,
        reached=reached(seeds),
        assumptions=_assumptions(std, alpha, tests, unit),
    )


def detectable_effect(seeds: int, std: float, *, tests: int) -> float:
    """The true difference that `POWER` of studies detect at 5 % false alarms, in ``std``'s unit.

    Args:
        seeds: of each of the two networks.
        std: between the seeds of one network, the same for both.
        tests: how many steps are tested together (Holm's first hurdle, a share of the 5 %).
    """
    from scipy.special import nctdtrinc  # scipy.stats takes 0.7 s to import

    # The tail on the wrong side, as in `power_of`, is left out: it moves the effect by less than
    # 1e-5 of it.
    df = 2 * (seeds - 1)
    shift = float(nctdtrinc(df, 1 - POWER, t_quantile(df, 1 - 0.05 / tests)))
    return std * math.sqrt(2 / seeds) * shift


def power_of(seeds: int, effect: float, std: float, *, alpha: float = 0.05) -> float:
    """The probability that a two-sided t test on ``seeds`` seeds per network detects ``effect`` at
    ``alpha``, by the noncentral t distribution."""
    from scipy.stats import nct

    df = 2 * (seeds - 1)
    shift = abs(effect) / (std * math.sqrt(2 / seeds))
    limit = t_quantile(df, 1 - alpha)
    # The tail on the wrong side adds nothing for large shifts, where nct gives nan (from 4.2 on).
    wrong_side = nct.cdf(-limit, df, shift) if shift < 4 else 0.0
    return float(nct.sf(limit, df, shift) + wrong_side)


def _assumptions(std: PooledStd, alpha: float, tests: int, unit: str) -> str:
    return (
        f"Two-sided Welch's t test, {100 * alpha:g} % false alarms"
        + (f" over {tests} steps together (Holm's first hurdle)" if tests > 1 else "")
        + ". The standard deviation between seeds is "
        f"{f'{std.std:.3g} {unit}'.rstrip()}, from {std.source} ({std.df:g} "
        "degrees of freedom), assumed to be normal, true, and the same for both "
        "networks. The test images are fixed: more seeds say nothing about "
        "other images."
    )
