"""Finished runs of the study by arm, with what they cost to train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from convnext_study.runs.records import ModelRef, Record, Result, Run
from convnext_study.studies.pruning.arms import OF_OTHER_DATA

# The backward pass takes twice the operations of the forward pass; a multiply-accumulate is two.
TRAINING = 3 * 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """An arm of a target of a network: its finished runs over the seeds.

    ``target`` is empty for the network itself; ``parent`` is the row that it starts from; ``run``
    and ``result`` are the first seed's: other runs differ only in the seed, and in sizes if these
    depend on training. ``values`` are the primary metric, one per seed; ``std`` is None for one
    seed. ``macs`` per image and ``params`` (of a masked network the nonzero ones) are means over
    the seeds. ``flops`` are those of this arm's own training, for one seed: 3 x forward MACs x 2 x
    images x epochs.
    """

    name: str
    network: str
    target: str
    arm: str
    records: Sequence[Record]
    parent: Row | None
    run: Run
    result: Result
    values: Sequence[float]
    mean: float
    std: float | None
    macs: float
    params: float
    is_masked: bool
    flops: float

    def about(self, name: str) -> str:
        """A value of the run's metadata, such as its label."""
        return str(self.run.metadata[name])

    @property
    def flops_in_all(self) -> float:
        """FLOPs including the training of the rows that it starts from."""
        return self.flops + (self.parent.flops_in_all if self.parent else 0.0)

    @property
    def model(self) -> ModelRef:
        """The first seed's trained network."""
        return self.result.model or self.run.model


def _row(records: Sequence[Record], parent: Row | None) -> Row:
    run, manifest = records[0].run, records[0].manifest
    results = [record.result for record in records if record.result is not None]
    values = [result.value for result in results]
    extras: list[dict[str, Any]] = [result.cost.model_extra or {} for result in results]
    params = [
        int(extra.get("nonzero", result.cost.params))
        for extra, result in zip(extras, results, strict=True)
    ]
    macs = fmean(result.cost.macs for result in results)
    images = int(manifest.get("data", {}).get("train", {}).get("images", 0))
    batch = int(run.recipe["global_batch_size"])
    steps = max(images // batch, 1)
    return Row(
        name=run.name,
        **{name: str(run.metadata[name]) for name in ("network", "target", "arm")},
        records=records,
        parent=parent,
        run=run,
        result=results[0],
        values=values,
        mean=fmean(values),
        std=stdev(values) if len(values) > 1 else None,
        macs=macs,
        params=fmean(params),
        is_masked=any("nonzero" in extra for extra in extras),
        flops=TRAINING * macs * steps * min(batch, images) * results[0].epochs,
    )


def rows_of(records: Iterable[Record]) -> dict[str, Row]:
    """Rows of finished runs by name, in the order of the records' metadata.

    Networks trained on other data, which only serve as parents, are left out: their accuracies are
    not comparable.
    """
    grouped: dict[str, list[Record]] = {}
    finished = [record for record in records if record.result is not None]
    for record in sorted(finished, key=lambda record: record.run.metadata["order"]):
        grouped.setdefault(record.run.name, []).append(record)
    names = {record.run.key: record.run.name for record in finished}
    rows: dict[str, Row] = {}
    for name, seeds in grouped.items():
        parent = rows.get(names.get(seeds[0].run.init_from or "", ""))
        rows[name] = _row(sorted(seeds, key=lambda record: record.run.seed), parent)
    return {name: row for name, row in rows.items() if OF_OTHER_DATA not in row.run.metadata}
