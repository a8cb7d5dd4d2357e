"""Finished runs of the study by arm, with what they cost to train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from convnext_study.runs.records import ModelRef, Record, Result, Run
from convnext_study.studies.pruning.arm_names import DENSE, OF_OTHER_DATA

# The backward pass takes twice the forward's operations, a multiply-accumulate is two.
TRAINING = 3 * 2


@dataclass(frozen=True)
class Row:
    """An arm of a target of a network: its runs over the seeds, and those that they start from.

    ``parents`` are rows by name, nearest first.
    """

    name: str
    records: Sequence[Record]
    parent: Row | None = None

    @property
    def run(self) -> Run:
        """That of the first seed: the others differ in the seed alone."""
        return self.records[0].run

    @property
    def results(self) -> list[Result]:
        """One a seed."""
        return [record.result for record in self.records if record.result is not None]

    @property
    def first(self) -> Result:
        """The first seed's: sizes are those of all, but where training decides them."""
        return self.results[0]

    @property
    def network(self) -> str:
        """The name of the network that is pruned."""
        return str(self.run.metadata["network"])

    @property
    def target(self) -> str:
        """What is pruned of it; nothing for the network itself."""
        return str(self.run.metadata["target"])

    @property
    def arm(self) -> str:
        """The arm's name."""
        return str(self.run.metadata["arm"])

    @property
    def label(self) -> str:
        """For people."""
        return str(self.run.metadata["label"])

    @property
    def values(self) -> list[float]:
        """The primary metric, one a seed."""
        return [result.value for result in self.results]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """Between seeds; None of one."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def macs(self) -> float:
        """Of one image, the mean over seeds where they differ."""
        return fmean(result.cost.macs for result in self.results)

    @property
    def params(self) -> float:
        """The mean over seeds; of a masked network those that are not zero."""
        return fmean(nonzero(result) for result in self.results)

    @property
    def is_masked(self) -> bool:
        """Whether weights are zero and still computed."""
        return any("nonzero" in (result.cost.model_extra or {}) for result in self.results)

    @property
    def flops(self) -> float:
        """Of this arm's own training, one seed's: 3 x forward MACs x 2 x images x epochs."""
        images = int(self.records[0].manifest.get("data", {}).get("train", {}).get("images", 0))
        batch = int(self.run.recipe["global_batch_size"])
        steps = max(images // batch, 1)
        return TRAINING * self.macs * steps * min(batch, images) * self.first.epochs

    @property
    def flops_in_all(self) -> float:
        """With the training of what it starts from."""
        return self.flops + (self.parent.flops_in_all if self.parent else 0.0)

    @property
    def model(self) -> ModelRef:
        """The network that was trained, the first seed's."""
        return self.first.model or self.run.model


def nonzero(result: Result) -> int:
    """Parameters that are not held at zero."""
    extra: dict[str, Any] = result.cost.model_extra or {}
    return int(extra.get("nonzero", result.cost.params))


def rows_of(records: Iterable[Record]) -> dict[str, Row]:
    """Rows by name, in the order of the records' metadata; runs that are not finished left out.

    So are networks that were trained on other data, which others have as their parents: their
    accuracies do not compare.
    """
    grouped: dict[str, list[Record]] = {}
    finished = [record for record in records if record.result is not None]
    for record in sorted(finished, key=lambda one: one.run.metadata["order"]):
        grouped.setdefault(record.run.name, []).append(record)
    names = {record.run.key: record.run.name for record in finished}
    rows: dict[str, Row] = {}
    for name, several in grouped.items():
        start = several[0].run.init_from
        parent = rows.get(names.get(start or "", ""))
        rows[name] = Row(name, sorted(several, key=lambda one: one.run.seed), parent)
    return {name: row for name, row in rows.items() if OF_OTHER_DATA not in row.run.metadata}


def by_arm(rows: Mapping[str, Row], network: str, target: str) -> dict[str, Row]:
    """The arms of one target, the network itself among them."""
    return {
        row.arm: row
        for row in rows.values()
        if row.network == network
        and (row.target == target or (row.arm == DENSE and not row.target))
    }


def targets_of(rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    """Networks and targets, in order."""
    return list(dict.fromkeys((row.network, row.target) for row in rows.values() if row.target))
