"""The loop. It trains every study, and loses no work when it is stopped.

Every random draw is a function of the seed and the step, so that a run that was killed and
resumed ends bit for bit like one that was not.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from convnext_study import cost
from convnext_study.models.fast_conv import restore_convs
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.provenance import commit, hardware, versions
from convnext_study.runs.records import RESULT, Epoch, Result, Run, write_json
from convnext_study.training import distributed
from convnext_study.training.lr_schedule import learning_rate
from convnext_study.training.memory import forget_peak, peak_memory
from convnext_study.training.precision import autocast_of
from convnext_study.training.runtime import Runtime
from convnext_study.training.state import TrainingError, TrainState, build_train_state
from convnext_study.training.step import Report, Stepper, batched
from convnext_study.training.task import Evaluation, Task

__all__ = ["Callback", "TrainingError", "TrainingInterrupted", "evaluate", "train"]

# After so many steps in a row that are not finite, more of the same will not help.
MOST_SKIPPED_IN_ROW = 10
# Seconds of evaluation from which an epoch's state is saved before it, and not only after.
LONG = 1.0


class TrainingInterrupted(Exception):
    """Training was requested to stop, and has saved its state."""


class Callback(Protocol):
    """Receives what is also written to the record, and must never raise."""

    def epoch(self, line: Epoch) -> None:
        """Called once per epoch, after its line is written to the log."""
        ...

    def finish(self, result: Result) -> None:
        """Called once, after the result is written."""
        ...


def train(
    run: Run,
    path: Path,
    runtime: Runtime | None = None,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a run in its folder, from wherever it is, and return its result.

    A finished run returns at once. ``stop`` is called after every step and evaluation batch.

    Raises:
        RunError: another process works on this folder, or it holds another run.
        TrainingError: step after step is not finite, or the state cannot be saved.
        CheckpointError: the state is there and cannot be read.
        TrainingInterrupted: ``stop`` said so; the state is saved.
    """
    runtime = runtime or Runtime()
    with contextlib.ExitStack() as stack:
        opened = RunFolder(path, run, writes=runtime.rank == 0)
        folder = distributed.together(lambda: stack.enter_context(opened))
        if (
            result := distributed.broadcast_object(folder.result() if folder.done else None)
        ) is not None:
            return cast(Result, result)
        runtime.apply()
        forget_peak(runtime.device)
        try:
            training = build_train_state(run, folder, runtime, stop)
            result = _train(training, callbacks)
        except TrainingInterrupted:
            folder.event("stopped")
            raise
        except Exception as error:
            folder.failed(error, runtime.rank)
            raise
        for listener in callbacks:
            listener.finish(result)
        return result


def _train(training: TrainState, listeners: Sequence[Callback]) -> Result:
    resumed = training.restore()
    training.folder.rewind(training.progress.history)
    _log_start(training, "resumed" if resumed else "started")
    stepper = Stepper(training)
    evaluated = None
    while len(training.progress.history) < training.recipe.epochs:
        line, evaluated = _epoch(training, stepper)
        for listener in listeners:
            listener.epoch(line)
    # A run that was killed after its last epoch is evaluated again: same network, same answer.
    result = _finish(training, evaluated or _evaluate(training))
    distributed.barrier()
    return result


def _log_start(training: TrainState, event: str) -> None:
    """Under what each start of a run went on, since it may be another machine or version."""
    training.folder.event(
        event,
        step=training.progress.step,
        world_size=training.runtime.world_size,
        settings=training.runtime.settings(),
        versions=versions(),
        commit=commit(),
        hardware=hardware(training.runtime.device),
    )


def _epoch(training: TrainState, stepper: Stepper) -> tuple[Epoch, dict[str, Evaluation]]:
    """Train to the end of the current epoch, save, evaluate, log."""
    task, state, recipe = training.task, training.progress, training.recipe
    # An epoch ends when it is logged: a run stopped after its last step still has to be evaluated.
    epoch = len(state.history)
    done = state.step - epoch * task.steps_per_epoch
    _steps(training, stepper, task.train_batches(epoch, done))
    training.share_buffers()
    # Saving before and after would cost as much as a short evaluation itself.
    if saved_before := state.evaluation_seconds > LONG:
        _save(training)
    began = time.perf_counter()
    try:
        evaluated = _evaluate(training)
    except TrainingInterrupted:
        if not saved_before:
            _save(training)
        raise
    state.evaluation_seconds = distributed.broadcast_object(time.perf_counter() - began)
    state.seconds += state.evaluation_seconds
    result = evaluated[recipe.eval_weights]
    line = Epoch(
        epoch=epoch + 1,
        epochs=recipe.epochs,
        loss=state.loss_sum / max(state.images, 1),
        lr=learning_rate(recipe, state.step - 1, task.steps_per_epoch),
        top1=result.top1,
        val_loss=result.val_loss,
        seconds=round(state.seconds - sum(before["seconds"] for before in state.history), 4),
        images_per_s=round(state.images / max(state.train_seconds, 1e-9), 2),
        **_both(evaluated),
    )
    state.history.append(line.model_dump())
    state.loss_sum, state.images, state.train_seconds = 0.0, 0, 0.0
    _save(training)
    training.folder.log(line.model_dump())
    return line, evaluated


def _save(training: TrainState) -> None:
    """Save, and log which images could not be read, each once a run."""
    met = frozenset[str]().union(*distributed.all_gather(training.task.corrupt_names))
    new = sorted(met.difference(training.progress.corrupt_names))
    if new:
        training.folder.event("corrupt_images", names=new)
        training.progress.corrupt_names += new
    training.save()


def _steps(training: TrainState, stepper: Stepper, batches: Any) -> None:
    """The epoch's remaining steps.

    Raises TrainingInterrupted, the state saved, where that is requested.
    """
    state, often = training.progress, training.runtime.checkpoint_seconds
    training.forward.train()
    stepper.begin_epoch()
    saved = clock = time.perf_counter()
    for group in batched(iter(batches), training.task.accum_steps):
        stepper.take(group, due=time.perf_counter() - saved > often)
        reports = list(stepper.reports())
        leave_off = any(report.stop or report.due for report in reports)
        if leave_off:
            reports += stepper.reports(all_of_them=True)
        now = time.perf_counter()
        state.train_seconds += now - clock
        state.seconds += now - clock
        clock = now
        _account(training, reports)
        if leave_off:
            _save(training)
            if any(report.stop for report in reports):
                raise TrainingInterrupted
            saved = clock = time.perf_counter()
    _account(training, stepper.reports(all_of_them=True))


def _account(training: TrainState, reports: Iterable[Report]) -> None:
    """Add steps up, once their numbers are known.

    Raises TrainingError after too many in a row that were not finite; the state is saved.
    """
    state = training.progress
    for report in reports:
        state.corrupt_images += round(report.corrupt_images)
        if report.is_finite:
            state.loss_sum += report.loss * report.images
            state.images += round(report.images)
            state.skipped_in_row = 0
            continue
        state.skipped += 1
        # fp16 looks for the largest scale that does not overflow: that is no fault of the run.
        overflow = math.isfinite(report.loss) and training.scaler.get_scale() > 1
        state.skipped_in_row += not overflow
        training.folder.event(
            "skipped", step=report.step, loss=str(report.loss), reason=report.trouble
        )
        if state.skipped_in_row >= MOST_SKIPPED_IN_ROW:
            training.save()
            raise TrainingError(
                f"{training.folder.path}: the {report.trouble} is not finite at step "
                f"{report.step} (loss is {report.loss}), the {MOST_SKIPPED_IN_ROW}th time in a "
                "row; try a lower learning rate (lr), gradient clipping (clip_grad), or "
                "precision float32"
            )


def _evaluate(training: TrainState) -> dict[str, Evaluation]:
    """The accuracy of the weights and, where there is one, of their moving average.

    Raises TrainingInterrupted where that is requested; the state is saved before.
    """

    def check() -> None:
        if distributed.all_reduce_any(training.stop()):
            raise TrainingInterrupted

    with autocast_of(training.recipe.precision, training.runtime.device):
        evaluated = {"raw": evaluate(training.task, training.model, check)}
        if training.ema is not None:
            evaluated["ema"] = evaluate(training.task, training.ema, check)
    return evaluated


def _both(evaluated: dict[str, Evaluation]) -> dict[str, Any]:
    if "ema" not in evaluated:
        return {}
    return {f"top1_{name}": result.top1 for name, result in evaluated.items()}


def evaluate(task: Task, model: nn.Module, check: Callable[[], None] = lambda: None) -> Evaluation:
    """Evaluate a network on the whole validation set, and leave it in the mode it was in."""
    training = model.training
    model.eval()
    try:
        return task.evaluate(model, check)
    finally:
        model.train(training)


def _finish(training: TrainState, evaluated: dict[str, Evaluation]) -> Result:
    """The record of a finished run, written last."""
    state = training.progress
    result = evaluated[training.recipe.eval_weights]
    extras = _extras(training, result)  # before counting, which takes memory of its own
    restore_convs(training.model)  # what is counted is the network itself
    counted = cost.count(training.model, training.task.image_shape)
    record = Result(
        top1=result.top1,
        val_loss=result.val_loss,
        val_images=len(result.correct),
        correct_bits=pack_bits(result.correct),
        macs=counted.macs,
        params=counted.params,
        activations=counted.activations,
        images_per_s=statistics.median(line["images_per_s"] for line in state.history),
        seconds=round(state.seconds, 3),
        epochs=training.recipe.epochs,
        **_both(evaluated),
        **extras,
    )
    if training.runtime.rank == 0:
        write_json(training.folder.path / RESULT, record.model_dump())
    training.folder.event("done", top1=record.top1)
    return record


def _extras(training: TrainState, evaluated: Evaluation) -> dict[str, Any]:
    """What qualifies a result: how the batch was split, what was skipped, what it took."""
    runtime, state = training.runtime, training.progress
    share = training.recipe.global_batch_size // runtime.world_size
    return {
        "batch": {
            "global": training.recipe.global_batch_size,
            "world_size": runtime.world_size,
            "accum_steps": training.task.accum_steps,
            "micro_batch_size": share // training.task.accum_steps,
        },
        "skipped_steps": state.skipped,
        "corrupt_images": state.corrupt_images,
        "corrupt_val_images": evaluated.corrupt_images,
        "peak_memory": peak_memory(runtime.device),
    }


def pack_bits(correct: Tensor) -> str:
    """Bools to hex, eight images a byte, the first image in the highest bit."""
    import numpy as np

    return np.packbits(correct.numpy()).tobytes().hex()
