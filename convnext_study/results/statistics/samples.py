"""A metric over its test samples: what another draw of samples, or of groups of them, would change.

A metric with evidence is a mean over classes of the ratio of two sums over the samples: of right
answers by answers, of values by ones, of intersections by unions. So it is computed from sums
alone, and drawing samples anew is weighting them. Samples of one group (frames of one scene,
patches of one image) are not independent: they are drawn together, as one unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from convnext_study.errors import UserError

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

Kind = Literal["bits", "ratio", "values"]


@dataclass(frozen=True)
class SampleSums:
    """Runs of one network on the same samples.

    Args:
        sums: float64 (units, runs, classes, 2): what is divided, and what it is divided by, summed
            over each unit.
        scale: 100 for a metric in percent, 1 for one in its own unit.
        samples: how many there are.
        grouped: whether a unit is a group of samples and not one sample.
    """

    sums: Array
    scale: float
    samples: int
    grouped: bool

    @property
    def units(self) -> int:
        """How many independent draws there are."""
        return len(self.sums)

    @property
    def drawn(self) -> str:
        """In words: ``599 test images``, ``40 groups of test images``."""
        return (
            f"{self.units} groups of test images" if self.grouped else f"{self.units} test images"
        )

    def of_runs(self, part: slice) -> SampleSums:
        """Some of the runs."""
        return replace(self, sums=self.sums[:, part])

    def value(self) -> float:
        """The metric, as a mean over the runs."""
        return float(metric_of(self.sums.sum(axis=0), self.scale))


def sample_sums(kind: Kind, runs: Sequence[Array], groups: Array | None = None) -> SampleSums:
    """The sums of runs' evidence.

    Args:
        kind: as in ``runs.metrics.Samples``.
        runs: of each run bools or floats (samples,), or counts (samples, classes, 2).
        groups: the group of each sample (samples,); None: each sample is one of its own.

    Raises UserError for runs with unlike numbers of samples or classes.
    """
    import numpy as np

    shapes = sorted({run.shape for run in runs})
    if len(shapes) > 1:
        counts = " and ".join(str(shape[0]) for shape in shapes)
        raise UserError(f"{counts} test images cannot be paired: use the same data")
    arrays = np.stack([np.asarray(run, dtype=float) for run in runs], axis=1)
    if kind != "ratio":
        arrays = np.stack([arrays, np.ones_like(arrays)], axis=-1)[:, :, None, :]
    if groups is not None:
        _, place = np.unique(groups, return_inverse=True)
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        summed = np.add.reduceat(arrays[order], starts, axis=0)
    else:
        summed = arrays
    scale = 1.0 if kind == "values" else 100.0
    return SampleSums(summed, scale, len(arrays), groups is not None)


def standard_error(own: SampleSums) -> float:
    """The jackknife standard error of a metric's mean over its runs, for the choice of samples."""
    if own.units < 2:
        return 0.0
    pseudo = pseudo_values(own).mean(axis=0)
    return float(pseudo.std(ddof=1)) / math.sqrt(own.units)


def pseudo_values(own: SampleSums) -> Array:
    """What each unit says of each run's metric: (runs, units); their mean is the metric, or near
    it where it is no mean."""
    import numpy as np

    runs = [own.sums[:, [run]] for run in range(own.sums.shape[1])]
    made = []
    for one in runs:
        total = one.sum(axis=0)
        whole, left_out = metric_of(total, own.scale), metric_of(total - one, own.scale)
        made.append(own.units * whole - (own.units - 1) * left_out)
    return np.stack(made)


def metric_of(totals: Array, scale: float) -> Array:
    """The mean over runs and classes of what sums (..., runs, classes, 2) stand for: (...)."""
    import numpy as np

    above, below = totals[..., 0], totals[..., 1]
    there = below > 0
    shares = np.where(there, above / np.where(there, below, 1), 0.0)
    by_run = shares.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return np.asarray(scale * by_run.mean(axis=-1))
