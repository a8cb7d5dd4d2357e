"""What a study's files and figure say of the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from convnext_study.roadmap import ROADMAPS

if TYPE_CHECKING:
    from convnext_study.results.rows import ResultRow

IMAGENET_IMAGES = 50_000  # of ImageNet-1K's validation set


@dataclass(frozen=True, kw_only=True)
class StudyTitle:
    """The whole of a study in a few words.

    ``compare_paper``: whether the paper's numbers may stand in the same picture.
    """

    title: str
    data: str
    regime: str | None
    compare_paper: bool


def study_title(rows: Sequence[ResultRow]) -> StudyTitle:
    """What the rows have in common.

    The paper's numbers are comparable with rows of its own road maps that were evaluated on as many
    images as ImageNet-1K's validation set has.
    """
    regimes = {row.regime for row in rows}
    regime = regimes.pop() if len(regimes) == 1 else None
    studies = sorted({row.study for row in rows})
    on_road = regime in ROADMAPS and studies == [f"roadmap-{regime}"]
    done = [row for row in rows if row.value is not None]
    return StudyTitle(
        title="From ResNet to ConvNeXt, step by step" if on_road else ", ".join(studies),
        # Data that was moved goes by one name.
        data=", ".join(sorted({row.data_id or row.data: row.data for row in rows}.values())),
        regime=regime,
        compare_paper=bool(done)
        and all(row.val_images == IMAGENET_IMAGES and row.paper_value is not None for row in done),
    )


def describe_runs(rows: Sequence[ResultRow], meta: StudyTitle) -> list[str]:
    """Regime, data, test images, seeds and runs, each in a few words."""
    done = [row for row in rows if row.value is not None]
    parts = [f"regime {meta.regime}"] if meta.regime else []
    parts.append(f"data {short_data(meta.data)}")
    if done:
        images, seeds = [row.val_images or 0 for row in done], [len(row.seeds) for row in done]
        parts.append(f"{_range(images)} test images")
        parts.append(f"{_range(seeds)} seed{'' if max(seeds) == 1 else 's'}")
        parts.append(f"{sum(seeds):,} finished run{'' if sum(seeds) == 1 else 's'}")
    return parts


def _range(numbers: Sequence[int]) -> str:
    """``3``, or ``1 to 3``."""
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(f"{number:,}" for number in ends)


def short_data(uri: str) -> str:
    """A data URI without the folders that lead to it: they are no one else's business."""
    parts = []
    for one in uri.split(", "):
        kind, found, path = one.partition(":")
        parts.append(f"{kind}:{PurePath(path).name}" if found and "/" in path else one)
    return ", ".join(parts)
