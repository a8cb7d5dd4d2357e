"""Speed on this machine: ratios with their spread, from interleaved repeats.

Absolute rates vary by machine and moment. What is compared is therefore interleaved, A B, B A,
A B, and each repeat gives one ratio; their median and extremes are reported.

Each module of `PARTS` has ``measure(settings, report)``, which returns a title and rows made by
`timing.compare`, and calls ``report`` with what it is about to measure.
"""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("networks", "engine_overhead", "pipeline")
BATCH = 8  # images of 224x224


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and for how long; each part has its defaults for None and no names.

    Args:
        regime: of the road map.
        repeats: of each comparison.
        seconds: the least per measurement.
        threads: of each measurement.
        device: where it runs.
        batch_size: images per step.
        quick: measure less, and only both ends of the road.
        data: ``folder:PATH``, for the pipeline.
        networks: names, for a study.
        image_size: height and width, for a study.
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
