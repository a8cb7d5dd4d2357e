"""Speed on this machine: ratios with their spread, from interleaved repeats.

Absolute rates belong to one machine at one moment. What is compared is therefore interleaved,
A B, B A, A B, and each repeat gives one ratio; their median and extremes are reported.

Each module of `PARTS` has ``measure(settings, report)``, which returns a title and rows as
`timing.compare` makes them, and calls ``report`` with what it is about to measure.
"""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("networks", "engine_overhead", "pipeline")
BATCH = 8  # images of 224x224


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how much of it; None and no names leave it to the part.

    Args:
        regime: of the road map.
        repeats: of each comparison.
        seconds: per measure, at least.
        threads: of each measure.
        device: where it runs.
        batch_size: images per step.
        quick: only both ends of the road, less of everything.
        data: ``folder:PATH``, of the pipeline.
        networks: names, of a study.
        image_size: height and width, of a study.
    """

    regime: str
    repeats: int
    seconds: float
    threads: int
    device: str = "cpu"
    batch_size: int | None = None
    quick: bool = False
    data: str | None = None
    networks: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
