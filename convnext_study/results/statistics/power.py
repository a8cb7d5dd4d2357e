"""How many seeds it takes to see a difference of a given size."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from convnext_study.errors import UserError
from convnext_study.results.statistics.intervals import PooledStd, t_quantile

MOST_SEEDS = 100_000
POINTS = "points"


@dataclass(frozen=True, kw_only=True)
class Power:
    """The number of ``seeds`` for each of two networks, the power that it ``reached``, and the
    assumptions, in sentences for the reader."""

    seeds: int
    reached: float
    assumptions: str


def seeds_needed(
    effect: float,
    std: PooledStd,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    paired: bool = False,
    tests: int = 1,
    unit: str = POINTS,
) -> Power:
    """The fewest seeds for each network that show a true difference of ``effect``.

    Args:
        effect: the difference to see, in ``unit``, either way.
        std: between the seeds of one network, the same for both.
        power: how often a study of that size is to see it.
        alpha: the share of false alarms, over all ``tests`` together.
        paired: a paired t test on shared seeds instead of an unpaired one.
        tests: how many steps are tested together; each is tested at ``alpha / tests``, which is
            what Holm's method asks of its smallest p.
        unit: of the effect and the standard deviation: points of a percentage, or another.

    Raises UserError for numbers out of range, or where `MOST_SEEDS` would not do.
    """
    if not (0 < alpha < power < 1 and tests >= 1):
        raise UserError(f"power {power:g} and alpha {alpha:g}: give 0 < alpha < power < 1")
    if not (math.isfinite(effect) and effect and std.std > 0):
        raise UserError(
            f"an effect of {f'{effect:g} {unit}'.rstrip()} at a standard deviation of {std.std:g}: "
            "give both, larger than 0"
        )

    def reached(seeds: int) -> float:
        return power_of(seeds, effect, std.std, alpha=alpha / tests, paired=paired)

    enough = 2 + bisect_left(range(2, MOST_SEEDS + 1), power, key=reached)
    if enough > MOST_SEEDS:
        raise UserError(
            f"{f'{effect:g} {unit}'.rstrip()} would take over {MOST_SEEDS} seeds: ask for more"
        )
    return Power(
        seeds=enough,
        reached=reached(enough),
        assumptions=_assumptions(std, alpha, paired, tests, unit),
    )


def power_of(
    seeds: int, effect: float, std: float, *, alpha: float = 0.05, paired: bool = False
) -> float:
    """How often a two-sided t test at ``alpha`` sees ``effect``, by the noncentral t distribution.

    Pairing keeps the standard error (the two networks' luck is taken as independent) and halves
    the degrees of freedom.
    """
    from scipy.stats import nct

    df = (seeds - 1) * (1 if paired else 2)
    shift = abs(effect) / (std * math.sqrt(2 / seeds))
    limit = t_quantile(df, 1 - alpha)
    # The tail on the wrong side is below 1e-12 for large shifts, where nct may give nan.
    wrong_side = nct.cdf(-limit, df, shift) if shift < 8 else 0.0
    return float(nct.sf(limit, df, shift) + wrong_side)


def _assumptions(std: PooledStd, alpha: float, paired: bool, tests: int, unit: str) -> str:
    kind = "paired t test on shared seeds" if paired else "unpaired t test"
    text = (
        f"Two-sided {kind}, {100 * alpha:g} % false alarms"
        + (f" over {tests} steps together (Holm's first hurdle)" if tests > 1 else "")
        + f". Deviation between seeds {f'{std.std:.3g} {unit}'.rstrip()}, from {std.source} "
        f"({std.df:g} degrees of freedom), taken as normal, true, and the same for both "
        "networks. "
    )
    if paired:
        text += (
            "The seeds' luck is taken as independent between the networks; where it is shared, "
            "fewer seeds suffice. "
        )
    return text + "The test images are taken as fixed: more seeds tell nothing of other images."
