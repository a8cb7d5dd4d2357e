"""Where a run is, in plain numbers, and what its steps add to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """What the processes tell each other of a step, summed over them.

    Args:
        step: which one, from 0.
        loss: the mean over the global batch.
        gradient: how many processes found theirs not finite.
        buffers: how many processes found theirs not finite.
        images: of the global batch.
        corrupt_images: that were replaced by others.
        stop: whether a process was requested to stop.
        due: whether it is time to save.
    """

    step: int
    loss: float
    gradient: float
    buffers: float
    images: float
    corrupt_images: float
    stop: float
    due: float

    @property
    def is_finite(self) -> bool:
        """Whether loss, gradient and buffers were all finite."""
        return math.isfinite(self.loss) and not (self.gradient or self.buffers)

    @property
    def trouble(self) -> str:
        """What was not finite."""
        if not math.isfinite(self.loss):
            return "loss"
        return "gradient" if self.gradient else "buffers"


@dataclass
class TrainProgress:
    """Where a run is: plain numbers, all of which go into a checkpoint."""

    step: int = 0  # optimizer steps done, skipped ones included
    skipped: int = 0  # steps whose loss, gradient or buffers were not finite
    skipped_in_row: int = 0
    loss_sum: float = 0.0  # over the images of this epoch so far
    images: int = 0
    corrupt_images: int = 0  # how often one that could not be read was replaced
    corrupt_names: list[str] = field(default_factory=list)  # which ones
    train_seconds: float = 0.0  # of this epoch so far
    seconds: float = 0.0  # of the whole run so far, over all resumes
    evaluation_seconds: float = math.inf  # of the last epoch
    hooked: int = 0  # epochs whose hooks are done
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """The epoch it is in, from 0. One ends when it is logged: after its evaluation."""
        return len(self.history)

    def add(self, report: Report) -> None:
        """Add up a step whose numbers were finite."""
        self.loss_sum += report.loss * report.images
        self.images += round(report.images)
        self.skipped_in_row = 0

    def add_skipped(self, *, counts: bool) -> None:
        """Add up a step that was skipped; it ``counts`` towards too many in a row."""
        self.skipped += 1
        self.skipped_in_row += counts

    def add_seconds(self, seconds: float) -> None:
        """Time spent in training."""
        self.train_seconds += seconds
        self.seconds += seconds

    def begin_epoch(self) -> None:
        """Forget what was added up for the epoch before."""
        self.loss_sum, self.images, self.train_seconds = 0.0, 0, 0.0
