"""A row of results, the runs of one name averaged over their seeds, and the title of all rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from convnext_study.results.grouping import ExcludedRun
from convnext_study.results.metric_spec import UNNAMED, MetricSpec
from convnext_study.roadmap import ROADMAPS

IMAGENET_IMAGES = 50_000  # of ImageNet-1K's validation set


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One network of a study, over its seeds. Unknown values are None.

    ``value`` is the mean of ``metric``, the runs' primary metric, in its unit, as is ``std``;
    ``interval`` is the 95 % one for the choice of test images, by ``interval_method``;
    ``image_groups`` counts groups of dependent images; ``resolution`` is what one image changes.
    ``gain`` is the difference of means to ``parent``, above 0 for the better, ``significant``
    whether its Holm-adjusted p is 0.05 or less (None: not tested). ``metrics`` are the means of all
    other metrics and ``costs`` all costs, by name; ``macs`` are per image; ``peak_memory`` is in
    bytes, the maximum over seeds; ``images_per_s`` is training throughput, the median over seeds.
    ``paper_value`` and ``paper_gflops`` are the paper's, on ImageNet-1K, for published rows only.
    ``data`` is the data's URI, ``data_id`` identifies it wherever it is stored. ``number`` counts
    the study's rows from 1.
    """

    name: str
    label: str
    study: str
    regime: str | None
    section: str | None
    order: int | None
    adopted: bool
    parent: str | None
    data: str
    data_id: str = ""
    recipe: str
    epochs: int | None
    seeds: dict[int, float]
    seeds_requested: int
    statuses: dict[str, int]
    metric: MetricSpec = UNNAMED
    value: float | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None
    interval_method: str = ""
    image_groups: int | None = None
    resolution: float = 0.0
    gain: float | None = None
    significant: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)
    val_images: int | None = None
    macs: int | None = None
    params: int | None = None
    activations: int | None = None
    peak_memory: float | None = None
    images_per_s: float | None = None
    train_seconds: float | None = None
    paper_value: float | None = None
    paper_gflops: float | None = None
    excluded: tuple[ExcludedRun, ...] = ()
    remarks: tuple[str, ...] = ()
    provenance: tuple[dict[str, Any], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def on_road(self) -> bool:
        """Whether it is a row of a whole road map rather than of an ablation."""
        return self.regime in ROADMAPS and self.study == f"roadmap-{self.regime}"

    @property
    def state(self) -> str:
        """``done``, or why it is empty: ``failed``, ``running``, ``unfinished``, ``not run``."""
        if self.value is not None:
            return "done"
        for status, word in (("running", "running"), ("failed", "failed")):
            if self.statuses.get(status):
                return word
        return "unfinished" if self.statuses.get("unfinished") else "not run"


def shared_metric(rows: Iterable[ResultRow]) -> MetricSpec:
    """The metric of all rows with a value; an unnamed one where they have several, or none."""
    metrics = {row.metric.name: row.metric for row in rows if row.value is not None}
    return next(iter(metrics.values())) if len(metrics) == 1 else UNNAMED


@dataclass(frozen=True, kw_only=True)
class StudyTitle:
    """What a study is, in a few words.

    ``compare_paper``: whether the paper's numbers may be shown in the same figure.
    """

    title: str
    data: str
    regime: str | None
    compare_paper: bool


def study_title(rows: Sequence[ResultRow]) -> StudyTitle:
    """The title of these rows.

    The paper's numbers are comparable with rows of its own road maps that were evaluated on as many
    images as ImageNet-1K's validation set has.
    """
    regimes = {row.regime for row in rows}
    regime = regimes.pop() if len(regimes) == 1 else None
    studies = sorted({row.study for row in rows})
    on_road = regime is not None and all(row.on_road for row in rows)
    done = [row for row in rows if row.value is not None]
    return StudyTitle(
        title="From ResNet to ConvNeXt, step by step" if on_road else ", ".join(studies),
        # Data that was moved is listed once.
        data=", ".join(sorted({row.data_id or row.data: row.data for row in rows}.values())),
        regime=regime,
        compare_paper=bool(done)
        and all(row.val_images == IMAGENET_IMAGES and row.paper_value is not None for row in done),
    )


def describe_runs(rows: Sequence[ResultRow], meta: StudyTitle) -> list[str]:
    """Regime, data, test images, seeds and runs, a few words each."""
    finished = [row for row in rows if row.value is not None and row.seeds]
    parts = [f"regime {meta.regime}"] if meta.regime else []
    parts.append(f"data {short_data(meta.data)}")
    if finished:
        runs = sum(len(row.seeds) for row in finished)
        parts.append(f"{_range([row.val_images or 0 for row in finished])} test images")
        parts.append(count_seeds(finished))
        parts.append(f"{runs:,} finished run{'' if runs == 1 else 's'}")
    return parts


def count_seeds(rows: Iterable[ResultRow]) -> str:
    """``1 seed``, or ``1 to 3 seeds``, of rows with a value."""
    counts = [len(row.seeds) for row in rows]
    return f"{_range(counts)} seed{'' if max(counts) == 1 else 's'}"


def _range(numbers: Sequence[int]) -> str:
    """``3``, or ``1 to 3``."""
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return " to ".join(f"{number:,}" for number in ends)


def short_data(uri: str) -> str:
    """A data URI without its parent folders, which a report need not disclose."""
    parts = []
    for part in uri.split(", "):
        kind, separator, path = part.partition(":")
        parts.append(f"{kind}:{PurePath(path).name}" if separator and "/" in path else part)
    return ", ".join(parts)
