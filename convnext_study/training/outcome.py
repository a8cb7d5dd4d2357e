"""A network measured: its weights, their moving average, the result, and the memory it took."""

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
from convnext_study.training.state import NOT_FINITE, TrainingError, autocast_of
from convnext_study.training.task import Evaluation, Task

if TYPE_CHECKING:
    from torch import nn

    from convnext_study.training.state import TrainState

PROCESS = Path("/proc/self")


def forget_peak(device: str) -> None:
    """Let ``peak_memory`` count from here on: a process trains one run after another."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(torch.device(device))
        return
    try:
        (PROCESS / "clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def peak_memory(device: str) -> int | None:
    """Bytes at the peak: allocated by torch on a GPU; on the CPU the process, libraries included.

    That of this process alone. None where nobody counts: on other devices, and where the system
    is not Linux.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.max_memory_allocated(torch.device(device))
    if kind != "cpu":
        return None
    try:
        status = (PROCESS / "status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def evaluate(task: Task, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
    """Evaluate a network on the whole validation set, and leave it in the mode it was in.

    Raises ScoresError where a score or a metric is not finite, and what ``check`` raises.
    """
    training = model.training
    model.eval()
    try:
        found = task.evaluate(model, check)
    finally:
        model.train(training)
    for metric in found.metrics.values():
        if not math.isfinite(metric.value):
            raise ScoresError(f"{metric.label} is {metric.value}")
    return found


def evaluate_all(training: TrainState, check: Callable[[], None]) -> dict[str, Evaluation]:
    """The weights, ``raw``, and, where there is one, their moving average, ``ema``.

    Raises what ``check`` raises, and TrainingError where a score of either is not finite.
    """
    models = {"raw": training.model, "ema": training.ema}
    evaluated: dict[str, Evaluation] = {}
    for kind, model in models.items():
        if model is None:
            continue
        try:
            with autocast_of(training.recipe.precision, training.runtime.device):
                evaluated[kind] = evaluate(training.task, model, check)
        except ScoresError as error:
            raise TrainingError(
                f"{training.folder.path}: after step {training.progress.step}, {kind} weights: "
                f"{error}; {NOT_FINITE}"
            ) from error
    return evaluated


def values(evaluated: dict[str, Evaluation], weights: str) -> dict[str, Any]:
    """What a line of the log says of an evaluation: the ``weights``' metrics, by whose primary
    the run is judged; of each other kind of weights the primary metric, ``top1_ema``."""
    chosen = evaluated[weights]
    primary = chosen.metrics[chosen.primary]
    metrics = {**chosen.metrics, **_primary_of_each(evaluated)}
    return {
        "metrics": {name: metric.value for name, metric in metrics.items()},
        "primary": chosen.primary,
        "label": primary.label,
        "unit": primary.unit,
    }


def write_result(training: TrainState, evaluated: dict[str, Evaluation]) -> Result:
    """The record of a finished run, written last."""
    state, recipe, runtime = training.progress, training.recipe, training.runtime
    chosen, accum_steps = evaluated[recipe.eval_weights], training.task.accum_steps
    peak = peak_memory(runtime.device)  # before counting, which takes memory of its own
    restore_convs(training.model)  # what is counted is the network itself
    about: dict[str, Any] = {
        "batch": {
            "global": recipe.global_batch_size,
            "world_size": runtime.world_size,
            "accum_steps": accum_steps,
            "micro_batch_size": recipe.global_batch_size // runtime.world_size // accum_steps,
        }
    }
    record = Result(
        metrics={**chosen.metrics, **_primary_of_each(evaluated)},
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
        **about,
    )
    if runtime.rank == 0:
        training.folder.write(RESULT, record.model_dump())
    training.folder.event("done", **{record.primary: record.value})
    return record


def _primary_of_each(evaluated: dict[str, Evaluation]) -> dict[str, Metric]:
    """The primary metric of each kind of weights, where there are several."""
    if len(evaluated) == 1:
        return {}
    return {
        f"{one.primary}_{kind}": one.metrics[one.primary].model_copy(
            update={"label": f"{one.metrics[one.primary].label}, {kind}", "samples": None}
        )
        for kind, one in evaluated.items()
    }
