"""One trained network at other thresholds: accuracy and computation, as the dial that it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from convnext_study.report.tables import Column, Table
from convnext_study.report.tables.formatting import level_interval
from convnext_study.results.per_sample import image_noise
from convnext_study.runs.metrics import Metric
from convnext_study.runs.records import Record
from convnext_study.studies.anytime.evidence import exits_in, judged_by
from convnext_study.studies.anytime.published import published
from convnext_study.studies.anytime.trained import load, remembered, result_of


class AtThreshold(NamedTuple):
    """A network evaluated at a threshold: ``record`` is the run's, with these metrics."""

    threshold: float
    record: Record

    @property
    def metrics(self) -> dict[str, Metric]:
        """Of the whole validation part."""
        return result_of(self.record).metrics

    @property
    def exits(self) -> int:
        """How many there are."""
        return exits_in(result_of(self.record))


def thresholds() -> tuple[float, ...]:
    """From nothing skipped to much, the published one among them."""
    return (1.0, float(published()["mask"]["threshold"]), 0.99, 0.95, 0.9, 0.8)


def sweep(record: Record, values: Sequence[float] = ()) -> list[AtThreshold]:
    """A run's network, evaluated at each threshold. Raises UserError where it cannot be had."""
    from convnext_study.training.outcome import evaluate

    def measure() -> list[dict[str, object]]:
        trained = load(record)
        found = []
        for value in values or thresholds():
            trained.net.threshold = value
            metrics = evaluate(trained.task, trained.net).metrics
            plain = {name: one.model_dump() for name, one in metrics.items()}
            found.append({"threshold": value, "metrics": plain})
        return found

    return [
        AtThreshold(one["threshold"], _with(record, one["metrics"]))
        for one in remembered(record, "thresholds", measure)
    ]


def threshold_table(swept: Sequence[AtThreshold], end: str = "") -> Table[AtThreshold]:
    """mIoU and MACs of each exit at each threshold."""
    exits = swept[0].exits
    columns: list[Column[AtThreshold]] = [
        Column("threshold", "threshold", lambda one: one.threshold, format="{:g}".format)
    ]
    for name, heading in (("miou", "mIoU"), ("macs", "MACs")):
        columns += [_column(name, heading, exit) for exit in range(1, exits + 1)]
    columns.append(
        Column("ci", f"95 %, exit {exits}", _interval, "interval", format=level_interval)
    )
    run = swept[0].record.run
    notes = (
        f"{run.metadata['label']}, seed {run.seed}: trained at "
        f"{published()['mask']['threshold']:g}, evaluated at each. MACs are means over the "
        "validation images. The interval is a bootstrap over images.",
    )
    title = "One trained network at each threshold of confidence"
    return Table(f"anytime_thresholds{end}", title, columns, swept, notes=notes)


def _column(name: str, heading: str, exit: int) -> Column[AtThreshold]:
    key = f"{name}_exit{exit}"
    prefixed = name == "macs"
    return Column(
        key,
        f"{heading}, exit {exit}",
        lambda one: one.metrics[key].value,
        prefixed=prefixed,
    )


def _interval(one: AtThreshold) -> tuple[float, float] | None:
    (judged,) = judged_by([one.record], f"miou_exit{one.exits}")
    found = image_noise([result_of(judged)]).interval
    return None if found is None else (found.low, found.high)


def _with(record: Record, metrics: dict[str, dict[str, object]]) -> Record:
    """The record as if its network had been evaluated so."""
    read = {name: Metric.model_validate(one) for name, one in metrics.items()}
    result = result_of(record).model_copy(update={"metrics": read})
    return record.model_copy(update={"result": result})
