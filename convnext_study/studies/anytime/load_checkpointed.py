"""Measurements of trained networks that need their checkpoints, not only their records.

Measured once: the time to each exit, and the metrics at other thresholds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from convnext_study.evaluation.trust import EvaluationError
from convnext_study.runs.files import CHECKPOINT, make_within, read_json, write_json
from convnext_study.runs.folder import hardware
from convnext_study.runs.metrics import Metric
from convnext_study.runs.records import Record
from convnext_study.studies.anytime.spec import published

if TYPE_CHECKING:
    from convnext_study.studies.anytime.exit_costs import ExitCosts
    from convnext_study.studies.anytime.network import AnytimeNet

MEASURED = "anytime-measured"  # a folder beside the runs, with measurements of trained networks
IMAGES = 20  # to time
THRESHOLDS = (1.0, float(published()["mask"]["threshold"]), 0.99, 0.95, 0.9, 0.8)  # none skipped: 1
HEATMAP_THRESHOLDS = (-1.0, 0.02, 0.05, 0.1, 0.2)  # none skipped: -1


def load_checkpointed(record: Record) -> tuple[AnytimeNet, ExitCosts]:
    """The network of a finished run, in evaluation mode and without heads for training only, and
    its task.

    Raises EvaluationError where its weights are missing.
    """
    from convnext_study.evaluation.load_run import load_run
    from convnext_study.studies.anytime.exit_costs import ExitCosts
    from convnext_study.studies.anytime.network import AnytimeNet
    from convnext_study.training.runtime import Runtime
    from convnext_study.training.tasks import make_task

    net = load_run(record.folder).net
    task = make_task(record.run, Runtime(corrupt_images="skip"))
    net = task.without_training_parts(net)
    if not isinstance(net, AnytimeNet) or not isinstance(task, ExitCosts):
        raise EvaluationError(f"{record.folder}: not a run of this study")
    return net, task


def first_seed(records: Sequence[Record]) -> Record | None:
    """The run with the lowest seed whose checkpoint is in its folder."""
    available = [record for record in records if (record.folder / CHECKPOINT).is_file()]
    return min(available, key=lambda record: record.run.seed, default=None)


def exit_milliseconds(record: Record) -> list[float]:
    """A trained network's time to each exit: medians over images, one at a time, on one core, in
    the fastest form that the masks allow.

    Other processes do not count. Raises UserError where the network cannot be loaded.
    """
    import torch

    from convnext_study.benchmarks.timing import one_thread
    from convnext_study.studies.anytime.bench import laps
    from convnext_study.studies.anytime.skipping.accelerate import accelerated
    from convnext_study.studies.anytime.skipping.compiled import build_name

    def measure() -> list[float]:
        net, task = load_checkpointed(record)
        fast = accelerated(net)
        with one_thread(), torch.inference_mode():
            images = [image[None] for image in task.first_images(IMAGES)[0]]
            for image in images[:2]:  # the first calls allocate
                list(fast.run(image))
            laps_per_image = [laps(partial(fast.run, image), time.process_time) for image in images]
        # After an exit that is confident everywhere, later ones take no time.
        return [1000 * statistics.median(times) for times in zip(*laps_per_image, strict=True)]

    context = {"kernels": build_name(), **hardware()}
    return [float(ms) for ms in _cached(record, "milliseconds", measure, context)]


def sweep(record: Record) -> dict[float, Record]:
    """A run's record with its network's metrics at each threshold, for masks of its kind.

    Raises UserError where the network cannot be loaded.
    """
    from convnext_study.training.outcome import evaluate

    def measure() -> list[dict[str, Any]]:
        net, task = load_checkpointed(record)
        rows = []
        heatmaps = net.spec.masks == "heatmap"
        for net.threshold in HEATMAP_THRESHOLDS if heatmaps else THRESHOLDS:
            metrics = evaluate(task, net).metrics
            values = {name: metric.model_dump() for name, metric in metrics.items()}
            rows.append({"threshold": net.threshold, "metrics": values})
        return rows

    records = {}
    for row in _cached(record, "thresholds", measure):
        metrics = {name: Metric.model_validate(values) for name, values in row["metrics"].items()}
        assert record.result is not None  # noqa: S101  findings() passes no others
        result = record.result.model_copy(update={"metrics": metrics})
        records[float(row["threshold"])] = record.model_copy(update={"result": result})
    return records


def _cached(
    record: Record, name: str, measure: Callable[[], Any], context: Mapping[str, Any] | None = None
) -> Any:
    """A measurement of a run's network, in plain values, cached beside the runs.

    The cache is valid for the checksum of the weights and for the ``context`` of the measurement,
    such as the machine.
    """
    from convnext_study.training import checkpoint_file

    digest = checkpoint_file.digest(record.folder / CHECKPOINT)
    path = make_within(record.folder.parents[1], MEASURED) / f"{record.run.id}-{name}.json"
    try:
        saved = read_json(path)
        if saved["weights"] == digest and saved.get("by") == context:
            return saved["measured"]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # missing or damaged: measure again
    measured = measure()
    write_json(path, {"weights": digest, "by": context, "measured": measured})
    return measured
