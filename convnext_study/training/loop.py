"""The loop. It trains every study, and loses no work when it is stopped.

Every random draw is a function of the seed and the step, so that a run that was killed and
resumed ends bit for bit like one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from convnext_study.data import pool
from convnext_study.errors import RunFailed
from convnext_study.runs.folder import RunFolder
from convnext_study.runs.parents import forget_parent
from convnext_study.runs.provenance import commit, hardware, versions
from convnext_study.runs.records import Epoch, Result, Run
from convnext_study.training import distributed
from convnext_study.training.build import build_train_state
from convnext_study.training.lr_schedule import learning_rate
from convnext_study.training.outcome import (
    evaluate,
    evaluate_all,
    forget_peak,
    values,
    write_result,
)
from convnext_study.training.progress import Report
from convnext_study.training.runtime import Runtime
from convnext_study.training.state import TrainingError, TrainState
from convnext_study.training.step import Stepper, batched
from convnext_study.training.task import Evaluation

__all__ = ["TrainingError", "TrainingInterrupted", "evaluate", "train"]

# After so many steps in a row that are not finite, more of the same will not help.
MOST_SKIPPED_IN_ROW = 10
# Seconds of evaluation from which an epoch's state is saved before it, and not only after.
LONG = 1.0


class TrainingInterrupted(Exception):
    """Training was requested to stop, and has saved its state."""


def train(
    run: Run,
    path: Path,
    runtime: Runtime | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a run in its folder, from wherever it is, and return its result.

    A finished run returns at once. ``stop`` is called after every step and evaluation batch.

    Raises:
        Busy: another process works on this folder.
        RunError: it holds another run, or cannot be written.
        ParentError: the run that it starts from is not done, or cannot be read.
        RunFailed: the state cannot be saved, the lock was lost, or a process that reads images
            was killed.
        TrainingError: step after step is not finite.
        CheckpointError: the state is there and cannot be read.
        TrainingInterrupted: ``stop`` said so; the state is saved.
    """
    runtime = runtime or Runtime()
    with contextlib.ExitStack() as stack:
        opened = RunFolder(path, run, writes=runtime.rank == 0, stop=stop)
        folder = distributed.together(lambda: stack.enter_context(opened))
        folder.join()
        if (
            result := distributed.broadcast_object(folder.result() if folder.done else None)
        ) is not None:
            return cast(Result, result)
        runtime.apply()
        forget_peak(runtime.device)
        pool.forget_failure()
        try:
            training = build_train_state(
                run, folder, runtime, lambda: stop() or bool(pool.failure())
            )
            return _train(training)
        except TrainingInterrupted:
            if why := next(filter(None, distributed.all_gather(pool.failure())), ""):
                failed = RunFailed(f"{path}: {why}; the state is saved")
                folder.failed(failed, runtime.rank)
                raise failed from None
            folder.event("stopped")
            raise
        except Exception as error:
            folder.failed(error, runtime.rank)
            raise


def _train(training: TrainState) -> Result:
    resumed = training.restore()
    training.folder.rewind(training.progress.history)
    training.folder.event(
        "resumed" if resumed else "started",
        step=training.progress.step,
        # Under what it went on, since it may be another machine or version.
        world_size=training.runtime.world_size,
        settings=training.runtime.settings(),
        versions=versions(),
        commit=commit(),
        hardware=hardware(training.runtime.device),
    )
    stepper = Stepper(training)
    evaluated = None
    while training.progress.epoch < training.recipe.epochs:
        evaluated = _epoch(training, stepper)
    # A run that was killed after its last epoch is evaluated again: same network, same answer.
    result = write_result(training, evaluated or evaluate_all(training, _checker(training)))
    if training.folder.writes:
        forget_parent(training.folder.path)
    distributed.barrier()
    return result


def _epoch(training: TrainState, stepper: Stepper) -> dict[str, Evaluation] | None:
    """Train to the end of the current epoch, save, evaluate, log."""
    task, state, recipe = training.task, training.progress, training.recipe
    epoch = state.epoch
    _steps(training, stepper, state.step - epoch * task.steps_per_epoch)
    if state.hooked == epoch:
        task.after_epoch(training.model, epoch)
        state.hooked += 1
    training.share_buffers()
    last = epoch + 1 == recipe.epochs
    evaluated = _evaluate(training) if last or task.evaluates_after(epoch) else None
    line = Epoch(
        epoch=epoch + 1,
        epochs=recipe.epochs,
        loss=state.loss_sum / max(state.images, 1),
        lr=learning_rate(recipe, state.step - 1, task.steps_per_epoch),
        seconds=round(state.seconds - sum(before["seconds"] for before in state.history), 4),
        images_per_s=round(state.images / max(state.train_seconds, 1e-9), 2),
        **(values(evaluated, recipe.eval_weights) if evaluated else {"metrics": {}, "primary": ""}),
    )
    state.history.append(line.model_dump())
    state.begin_epoch()
    training.save()
    training.folder.log(line.model_dump())
    return evaluated


def _evaluate(training: TrainState) -> dict[str, Evaluation]:
    """Evaluate what the epoch made, its state on disk before where that takes long.

    Raises TrainingInterrupted where that is requested; the state is saved.
    """
    state = training.progress
    # Saving before and after would cost as much as a short evaluation itself.
    if saved_before := state.evaluation_seconds > LONG:
        training.save()
    began = time.perf_counter()
    try:
        evaluated = evaluate_all(training, _checker(training))
    except TrainingInterrupted:
        if not saved_before:
            training.save()
        raise
    state.evaluation_seconds = distributed.broadcast_object(time.perf_counter() - began)
    state.seconds += state.evaluation_seconds
    return evaluated


def _checker(training: TrainState) -> Callable[[], None]:
    def check() -> None:
        if distributed.all_reduce_any(training.stop()):
            raise TrainingInterrupted

    return check


def _steps(training: TrainState, stepper: Stepper, done: int) -> None:
    """The epoch's steps after those that are ``done``.

    Raises TrainingInterrupted, the state saved, where that is requested.
    """
    task, state = training.task, training.progress
    training.forward.train()
    stepper.begin_epoch()
    saved = clock = time.perf_counter()
    for group in batched(task.train_batches(state.epoch, done), task.accum_steps):
        stepper.take(group, due=time.perf_counter() - saved > training.runtime.checkpoint_seconds)
        reports = list(stepper.reports())
        leave_off = any(report.stop or report.due for report in reports)
        if leave_off:
            reports += stepper.reports(all_of_them=True)
        now = time.perf_counter()
        state.add_seconds(now - clock)
        clock = now
        _account(training, reports)
        if leave_off:
            training.save()
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
            state.add(report)
            continue
        # fp16 looks for the largest scale that does not overflow: that is no fault of the run.
        overflow = math.isfinite(report.loss) and training.scaler.get_scale() > 1
        state.add_skipped(counts=not overflow)
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
