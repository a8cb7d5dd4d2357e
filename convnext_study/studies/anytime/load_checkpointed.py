"""What a study's records do not hold and its checkpoints do: a trained network, used again.

Measured once: how long it takes to each exit, and what it gives at other thresholds.
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

MEASURED = "anytime-measured"  # a folder beside the runs: what was measured of trained networks
IMAGES = 20  # that are timed
THRESHOLDS = (1.0, float(published()["mask"]["threshold"]), 0.99, 0.95, 0.9, 0.8)  # none skipped: 1
HEATMAP_THRESHOLDS = (-1.0, 0.02, 0.05, 0.1, 0.2)  # none skipped: -1


def load_checkpointed(record: Record) -> tuple[AnytimeNet, ExitCosts]:
    """The network of a finished run, in evaluation mode and without heads that are for training
    alone, and its task.

    Raises EvaluationError where its weights are not there.
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
        raise EvaluationError(f"{record.folder}: not a run of this study's")
    return net, task


def first_seed(records: Sequence[Record]) -> Record | None:
    """The run of the lowest seed whose checkpoint is where it was trained."""
    here = [record for record in records if (record.folder / CHECKPOINT).is_file()]
    return min(here, key=lambda record: record.run.seed, default=None)


def exit_milliseconds(record: Record) -> list[float]:
    """How long a trained network takes to each exit: medians over images, one at a time, of one
    core, in the fastest form that the masks allow.

    Other processes are not counted. Raises UserError where the network cannot be had.
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
            found = [laps(partial(fast.run, image), time.process_time) for image in images]
        # An image whose exits were all decided before takes no time for the rest.
        return [1000 * statistics.median(times) for times in zip(*found, strict=True)]

    by = {"kernels": build_name(), **hardware()}
    return [float(one) for one in _remembered(record, "milliseconds", measure, by)]


def sweep(record: Record) -> dict[float, Record]:
    """A run's record with the metrics of its network at each of its kind's thresholds.

    Raises UserError where the network cannot be had.
    """
    from convnext_study.training.outcome import evaluate

    def measure() -> list[dict[str, Any]]:
        net, task = load_checkpointed(record)
        found = []
        heatmaps = net.spec.masks == "heatmap"
        for net.threshold in HEATMAP_THRESHOLDS if heatmaps else THRESHOLDS:
            metrics = evaluate(task, net).metrics
            plain = {name: one.model_dump() for name, one in metrics.items()}
            found.append({"threshold": net.threshold, "metrics": plain})
        return found

    swept = {}
    for one in _remembered(record, "thresholds", measure):
        metrics = {name: Metric.model_validate(plain) for name, plain in one["metrics"].items()}
        assert record.result is not None  # noqa: S101  findings() keeps no others
        result = record.result.model_copy(update={"metrics": metrics})
        swept[float(one["threshold"])] = record.model_copy(update={"result": result})
    return swept


def _remembered(
    record: Record, name: str, measure: Callable[[], Any], by: Mapping[str, Any] | None = None
) -> Any:
    """What was measured of a run's network, in plain values; measured where it was not yet.

    Kept beside the runs, with the checksum of the weights that it belongs to, and with what it was
    measured ``by``, where that matters.
    """
    from convnext_study.training import checkpoint_file

    digest = checkpoint_file.digest(record.folder / CHECKPOINT)
    path = make_within(record.folder.parents[1], MEASURED) / f"{record.run.id}-{name}.json"
    try:
        kept = read_json(path)
        if kept["weights"] == digest and kept.get("by") == by:
            return kept["measured"]
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not there, or not whole: it is measured again
    measured = measure()
    write_json(path, {"weights": digest, "by": by, "measured": measured})
    return measured
