"""A row of results: the runs of one name, averaged over their seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from convnext_study.results.grouping import Exclusion
from convnext_study.results.metric_spec import UNNAMED, MetricSpec


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One network of a study, over its seeds. What is not known yet is None.

    ``value`` is the mean of ``metric``, which the runs are judged by, in its unit as ``std`` is;
    ``interval`` is of 95 % for the choice of test images, ``image_error`` the standard error of
    that choice, by ``interval_method``; ``image_groups`` counts the groups of images that are not
    independent; ``resolution`` is what one image changes. ``gain`` is the difference of means to
    ``parent``, above 0 for the better, ``significant`` where its Holm-adjusted p is 0.05 or less
    (None: not tested). ``metrics`` are the means of all other metrics and ``costs`` all costs, by
    name; ``macs`` are of
    one image; ``peak_memory`` is in bytes, the most of all seeds; ``images_per_s`` is training
    throughput, the median over seeds. ``paper_value`` and ``paper_gflops`` are the paper's, on
    ImageNet-1K, for published rows only. ``data`` is where the data is, ``data_id`` what it is,
    wherever that is. ``number`` counts the study's rows from 1.
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
    image_error: float | None = None
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
    excluded: tuple[Exclusion, ...] = ()
    remarks: tuple[str, ...] = ()
    provenance: tuple[dict[str, Any], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def state(self) -> str:
        """``done``, or what keeps the row empty: ``failed``, ``running``, ``not run``."""
        if self.value is not None:
            return "done"
        for status, word in (("running", "running"), ("failed", "failed")):
            if self.statuses.get(status):
                return word
        return "unfinished" if self.statuses.get("unfinished") else "not run"


def shared_metric(rows: Iterable[ResultRow]) -> MetricSpec:
    """The metric of all rows with a value; an unnamed one where they have several, or none."""
    found = {row.metric.name: row.metric for row in rows if row.value is not None}
    return next(iter(found.values())) if len(found) == 1 else UNNAMED
