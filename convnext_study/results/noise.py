"""The smallest difference of two accuracies that can be detected."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from convnext_study.results.statistics import (
    CONFIDENCE,
    PooledStd,
    pool_std,
    wilson_interval,
)
from convnext_study.runs.records import Record

if TYPE_CHECKING:
    from convnext_study.results.rows import ResultRow


def wilson(value: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy in percent, which may be a mean over seeds.

    It covers the choice of test images only: not the seed, nor another data set.
    """
    low, high = wilson_interval(value / 100 * images, images, confidence=CONFIDENCE)
    return low, high


class HasSeeds(Protocol):
    """A network's accuracies in percent by seed, and what they were measured on."""

    @property
    def data(self) -> str:
        """The data set, as on the command line."""
        ...

    @property
    def val_images(self) -> int | None:
        """How many images the accuracies are over; None where that is unknown."""
        ...

    @property
    def seeds(self) -> Mapping[int, float]:
        """Top-1 accuracy in percent, by seed."""
        ...


class Seeds(NamedTuple):
    """The `HasSeeds` of records."""

    data: str
    val_images: int | None
    seeds: Mapping[int, float]


def seeds_of(records: Iterable[Record]) -> Seeds:
    """The finished records of one network."""
    done = [(record.run, record.result) for record in records if record.result]
    if not done:
        return Seeds("", None, {})
    run, result = done[0]
    return Seeds(run.data, result.val_images, {run.seed: result.value for run, result in done})


def pooled_std(networks: Iterable[HasSeeds], of: str) -> PooledStd | None:
    """The standard deviation between seeds, in points, pooled over networks on the same data.

    Of several data sets it is the one that most of the networks with two seeds share. None where
    there is no such network. ``of`` says what they are, for the source.
    """
    several = [one for one in networks if len(one.seeds) > 1]
    kinds = [(one.data, one.val_images) for one in several]
    if not kinds:
        return None
    kept = max(kinds, key=kinds.count)
    alike = [one for one, kind in zip(several, kinds, strict=True) if kind == kept]
    return pool_std(
        [list(one.seeds.values()) for one in alike],
        f"{len(alike)} {of}",
        resolution=100 / (kept[1] or 1),
    )


def min_detectable_difference(rows: Sequence[ResultRow]) -> float | None:
    """The smallest difference of two rows, in points, that 95 % noise would not explain.

    Two rows are taken as independent draws of test images, which is careful: they share them. The
    seeds' standard deviation comes on top where it is known. None while nothing is done.
    """
    done = [row for row in rows if row.value is not None and row.val_images]
    if not done:
        return None
    images = min(row.val_images or 0 for row in done)
    share = statistics.median(row.value or 0.0 for row in done) / 100
    # Two hits and two misses more (Agresti and Coull): 100 % right must not mean no noise.
    share = (share * images + 2) / (images + 4)
    from_images = _normal_quantile() * math.sqrt(2 * share * (1 - share) / images) * 100
    pooled = pooled_std(done, "rows of this study")
    if pooled is None:
        return from_images
    from scipy.special import stdtrit

    count = min(len(row.seeds) for row in done)
    quantile = float(stdtrit(pooled.df, (1 + CONFIDENCE) / 2))
    return math.hypot(from_images, quantile * pooled.std * math.sqrt(2 / count))


def noise_note(rows: Sequence[ResultRow]) -> str:
    """The smallest detectable difference of the table, in one sentence."""
    diff = min_detectable_difference(rows)
    if diff is None:
        return "No run is done yet, so there is nothing to compare."
    done = [row for row in rows if row.value is not None and row.val_images]
    images = min(row.val_images or 0 for row in done)
    counts = sorted({len(row.seeds) for row in done})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    pooled = pooled_std(done, "rows of this study")
    spread = f" (standard deviation between seeds {pooled.std:.2f} points)" if pooled else ""
    note = (
        f"With {images} test images and {seeds} seed{'' if counts[-1] == 1 else 's'}{spread}, "
        f"differences under {diff:.1f} points are not significant."
    )
    if pooled is None:
        note += " What another seed would change is not in that number: it takes several seeds."
    return note


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + CONFIDENCE) / 2))
