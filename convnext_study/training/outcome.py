"""Evaluation of a network's weights and their moving average; the result; peak memory."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convnext_study.models.fast_conv import restore_convs
from convnext_study.runs.files import RESULT
from convnext_study.runs.metrics import Metric
from convnext_study.runs.records import Result
from convnext_study.training.guard import ScoresError
from convnext_study.training.state import LR_ADVICE, TrainingError, autocast_of
from convnext_study.training.task import Evaluation, Task

if TYPE_CHECKING:
    from torch import nn

    from convnext_study.training.state import TrainState

PROCESS = Path("/proc/self")


def reset_peak(device: str) -> None:
    """Reset ``peak_memory``, since a process trains one run after another."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(torch.device(device))
        return
    try:
        (PROCESS / "clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_memory(device: str) -> int | None:
    """This process's peak memory in bytes: torch's allocations on a GPU; all memory on the CPU.

    None if it is not measured: on other devices and other systems than Linux.
    """
    device_type = torch.device(device).type
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated(torch.device(device))
    if device_type != "cpu":
        return None
    try:
        status = (PROCESS / "status").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def evaluate(task: Task, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
    """Evaluate a network on the whole validation set; its training mode is restored.

    Raises ScoresError if a score or a metric is not finite, and what ``check`` raises.
    """
    training = model.training
    model.eval()
    try:
        evaluation = task.evaluate(model, check)
    finally:
        model.train(training)
    for metric in evaluation.metrics.values():
        if not math.isfinite(metric.value):
            raise ScoresError(f"{metric.label} is {metric.value}")
    return evaluation


def evaluate_all(training: TrainState, check: Callable[[], None]) -> dict[str, Evaluation]:
    """Evaluates the weights, ``raw``, and their moving average, ``ema``, if there is one.

    Raises what ``check`` raises, and TrainingError if a score of either is not finite.
    """
    models = {"raw": training.model, "ema": training.ema}
    evaluations: dict[str, Evaluation] = {}
    for weights, model in models.items():
        if model is None:
            continue
        try:
            with autocast_of(training.recipe.precision, training.runtime.device):
                evaluations[weights] = evaluate(training.task, model, check)
        except ScoresError as error:
            raise TrainingError(
                f"{training.folder.path}: after step {training.progress.step}, {weights} weights: "
                f"{error}; {LR_ADVICE}"
            ) from error
    return evaluations


def epoch_values(evaluations: dict[str, Evaluation], weights: str) -> dict[str, Any]:
    """The fields of an evaluation in a log line: the metrics of ``weights``, and the primary
    metric of each kind of weights if there are several, such as ``top1_ema``."""
    chosen = evaluations[weights]
    primary = chosen.metrics[chosen.primary]
    metrics = {**chosen.metrics, **_primary_of_each(evaluations)}
    return {
        "metrics": {name: metric.value for name, metric in metrics.items()},
        "primary": chosen.primary,
        "label": primary.label,
        "unit": primary.unit,
    }


def write_result(training: TrainState, evaluations: dict[str, Evaluation]) -> Result:
    """The record of a finished run, written last."""
    state, recipe, runtime = training.progress, training.recipe, training.runtime
    chosen, accum_steps = evaluations[recipe.eval_weights], training.task.accum_steps
    peak = peak_memory(runtime.device)  # before counting, which also takes memory
    restore_convs(training.model)  # count the original network
    extra: dict[str, Any] = {
        "batch": {
            "global": recipe.global_batch_size,
            "world_size": runtime.world_size,
            "accum_steps": accum_steps,
            "micro_batch_size": recipe.global_batch_size // runtime.world_size // accum_steps,
        }
    }
    record = Result(
        metrics={**chosen.metrics, **_primary_of_each(evaluations)},
        primary=chosen.primary,
        costs=training.task.costs(training.model),
        val_images=chosen.images,
        images_per_s=statistics.median(line["images_per_s"] for line in state.history),
        seconds=round(state.seconds, 3),
        epochs=recipe.epochs,
        model=training.task.built(),
        skipped_steps=state.skipped,
        corrupt_images=state.corrupt_images,
        corrupt_val_images=chosen.corrupt_images,
        peak_memory=peak,
        **extra,
    )
    if runtime.rank == 0:
        training.folder.write(RESULT, record.model_dump())
    training.folder.event("done", **{record.primary: record.value})
    return record


def _primary_of_each(evaluations: dict[str, Evaluation]) -> dict[str, Metric]:
    """The primary metric of each kind of weights, if there are several."""
    if len(evaluations) == 1:
        return {}
    return {
        f"{result.primary}_{weights}": result.metrics[result.primary].model_copy(
            update={"label": f"{result.metrics[result.primary].label}, {weights}", "samples": None}
        )
        for weights, result in evaluations.items()
    }
