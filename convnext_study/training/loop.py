"""The loop. It trains every study, and loses no work when it is stopped.

Every random draw is a function of the seed and the step, so that a run that was killed and
resumed ends bit for bit like one that was not. A step moves its numbers between the processes
once, in one packed sum, and back to the host once: on a GPU a step late, so that the host need not
wait for the device.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from convnext_study.data import pool
from convnext_study.data.rng import fold_in, seed_everything
from convnext_study.errors import RunFailed, first_line
from convnext_study.recipes import make_recipe
from convnext_study.runs.folder import RunFolder, commit, hardware, versions
from convnext_study.runs.parents import forget_parent
from convnext_study.runs.records import Epoch, Result, Run, is_done, read_result
from convnext_study.training import distributed
from convnext_study.training.build import build_train_state
from convnext_study.training.guard import Buffers, norm_of
from convnext_study.training.optimizer import learning_rate, take_step
from convnext_study.training.outcome import evaluate_all, forget_peak, values, write_result
from convnext_study.training.runtime import Runtime, uses_tf32
from convnext_study.training.state import NOT_FINITE, TrainingError, TrainState, autocast_of
from convnext_study.training.task import Evaluation

# After so many steps in a row that are not finite, more of the same will not help.
MOST_SKIPPED_IN_ROW = 10
LESS_MEMORY = (
    "use a smaller --micro-batch-size, --grad-checkpointing, or --precision bf16 (--dry-run says "
    "what fits)"
)
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
        done = distributed.broadcast_object(read_result(path) if is_done(path) else None)
        if done is not None:
            return cast(Result, done)
        tf32 = uses_tf32(make_recipe(run.recipe), runtime.tf32)
        runtime = replace(runtime, tf32=tf32)
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
            if is_out_of_memory(error):
                error = RunFailed(f"{path}: {first_line(error)}; {LESS_MEMORY}")
            folder.failed(error, runtime.rank)
            raise error


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was no memory left, of a GPU or, as torch has it, of this process."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _train(training: TrainState) -> Result:
    state, folder = training.progress, training.folder
    resumed = training.restore()
    folder.rewind(state.history)
    folder.event(
        "resumed" if resumed else "started",
        step=state.step,
        # Under what it went on, since it may be another machine or version.
        world_size=training.runtime.world_size,
        settings=training.runtime.settings(),
        versions=versions(),
        commit=commit(),
        hardware=hardware(training.runtime.device),
    )
    stepper = Stepper(training)
    evaluated = None
    while state.epoch < training.recipe.epochs:
        _take_steps(training, stepper)
        evaluated = _end_epoch(training)
    # A run that was killed after its last epoch is evaluated again: same network, same answer.
    evaluated = evaluated or evaluate_all(training, lambda: _check(training))
    result = write_result(training, evaluated)
    if folder.writes:
        forget_parent(folder.path)
    distributed.barrier()
    return result


def _take_steps(training: TrainState, stepper: Stepper) -> None:
    """The steps that are left of the current epoch.

    Raises TrainingInterrupted, the state saved, where that is requested.
    """
    task, state = training.task, training.progress
    training.forward.train()
    stepper.begin_epoch()
    saved = clock = time.perf_counter()
    batches = task.train_batches(state.epoch, state.step - state.epoch * task.steps_per_epoch)
    while group := list(islice(batches, task.accum_steps)):
        stepper.take(group, due=time.perf_counter() - saved > training.runtime.checkpoint_seconds)
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
        if not report.trouble:
            state.loss_sum += report.loss * report.images
            state.images += round(report.images)
            state.skipped_in_row = 0
            continue
        # fp16 looks for the largest scale that does not overflow: that is no fault of the run.
        overflow = math.isfinite(report.loss) and training.scaler.get_scale() > 1
        state.skipped += 1
        state.skipped_in_row += not overflow
        training.folder.event(
            "skipped", step=report.step, loss=str(report.loss), reason=report.trouble
        )
        if state.skipped_in_row >= MOST_SKIPPED_IN_ROW:
            training.save()
            raise TrainingError(
                f"{training.folder.path}: the {report.trouble} is not finite at step "
                f"{report.step} (loss is {report.loss}), the {MOST_SKIPPED_IN_ROW}th time in a "
                f"row; {NOT_FINITE}"
            )


def _end_epoch(training: TrainState) -> dict[str, Evaluation] | None:
    """Evaluate the current epoch, save, log."""
    task, state, recipe = training.task, training.progress, training.recipe
    epoch = state.epoch
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
    state.loss_sum, state.images, state.train_seconds = 0.0, 0, 0.0
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
        evaluated = evaluate_all(training, lambda: _check(training))
    except TrainingInterrupted:
        if not saved_before:
            training.save()
        raise
    state.evaluation_seconds = distributed.broadcast_object(time.perf_counter() - began)
    state.seconds += state.evaluation_seconds
    return evaluated


def _check(training: TrainState) -> None:
    if distributed.all_reduce_any(training.stop()):
        raise TrainingInterrupted


class Report(NamedTuple):
    """What the processes tell each other of a step, summed over them.

    Args:
        step: which one, from 0.
        loss: the mean over the global batch.
        gradient: how many processes found theirs not finite.
        buffers: how many processes found theirs not finite.
        images: of the global batch.
        corrupt_images: that were replaced by others.
        stop: whether a process was requested to stop.
        due: whether it is time to save.
    """

    step: int
    loss: float
    gradient: float
    buffers: float
    images: float
    corrupt_images: float
    stop: float
    due: float

    @property
    def trouble(self) -> str:
        """What was not finite; empty where all was."""
        if not math.isfinite(self.loss):
            return "loss"
        return "gradient" if self.gradient else "buffers" if self.buffers else ""


class Stepper:
    """Takes a run's optimizer steps: shared out over processes and micro-batches, guarded,
    repeatable; and tells how they went."""

    def __init__(self, training: TrainState) -> None:
        self._training = training
        self._buffers = Buffers(training.model)
        self._delay = delay_of(training.runtime.device)
        self._parameters = [p for p in training.model.parameters() if p.requires_grad]
        self._waiting: deque[tuple[int, Tensor]] = deque()
        self._warm = not distributed.several()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Count the bad images of training from here on: evaluation met some of its own."""
        self._bad_images = self._training.task.corrupt_images

    def take(self, batches: Sequence[Any], *, due: bool) -> None:
        """Move the weights by one global batch, of which ``batches`` is this process's share.

        A step whose loss, gradient or buffers are not finite leaves weights and buffers alone.
        """
        training, state = self._training, self._training.progress
        optimizer: Any = training.optimizer
        rate = learning_rate(training.recipe, state.step, training.task.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        self._buffers.remember()
        if not self._warm:
            # DistributedDataParallel lays its buckets out anew after the first backward pass, and
            # sums over three processes and more round by place: this one changes nothing, so that
            # a resumed run does not differ in the last bit.
            self._gradients(batches)
            optimizer.zero_grad(set_to_none=True)
            self._buffers.restore()
            self._warm = True
        loss, images = self._gradients(batches)
        report = self._report(loss, images, due=due)
        bad = ~torch.isfinite(report[0]) | (report[1] + report[2] > 0)
        # As a gradient scaler tells it: the fused step then changes nothing, on the device.
        optimizer.found_inf = bad.to(dtype=torch.float32, device=training.runtime.device)
        take_step(optimizer)
        optimizer.found_inf = None
        if training.scaler.is_enabled():
            training.scaler.update()
        self._buffers.restore(bad)
        training.task.after_step(training.model, state.step, bad)
        if training.ema is not None:
            training.ema.update_parameters(training.model)
        optimizer.zero_grad(set_to_none=True)
        self._waiting.append((state.step, report))
        state.step += 1

    def reports(self, *, all_of_them: bool = False) -> Iterator[Report]:
        """The steps whose numbers can be read without waiting, or all, each once."""
        while len(self._waiting) > (0 if all_of_them else self._delay):
            step, report = self._waiting.popleft()
            yield Report(step, *report.tolist())

    def _gradients(self, batches: Sequence[Any]) -> tuple[Tensor, int]:
        """Gradients of the mean loss over the global batch; the mean over this process's share of
        it, and the images there."""
        training = self._training
        device = training.runtime.device
        total, images = torch.zeros((), device=device), 0
        for place, batch in enumerate(batches):
            # A draw depends on which part of the global batch it is for, and on nothing else.
            part = training.runtime.rank * len(batches) + place
            seed_everything(fold_in(training.seed, "step", training.progress.step, part), device)
            # Gradients are shared with the other processes once a step, at its last micro-batch.
            no_sync: Any = getattr(training.forward, "no_sync", contextlib.nullcontext)
            with contextlib.nullcontext() if place == len(batches) - 1 else no_sync():
                with autocast_of(training.recipe.precision, device):
                    loss, count = training.task.loss(training.forward, batch)
                loss = loss.float() / len(batches)
                training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            images += count
        return total, images

    def _report(self, loss: Tensor, images: int, *, due: bool) -> Tensor:
        """The fields of a `Report` after ``step``, summed over the processes."""
        training = self._training
        if training.scaler.is_enabled():
            training.scaler.unscale_(training.optimizer)
        training.task.before_step(training.model, training.progress.step)
        norm = norm_of(one.grad for one in self._parameters if one.grad is not None)
        if training.recipe.clip_grad:
            clip_grads_with_norm_(self._parameters, training.recipe.clip_grad, norm)
        kind = torch.float32 if loss.device.type == "mps" else torch.float64
        finite = (torch.isfinite(norm), self._buffers.are_finite())
        corrupt_images, before = training.task.corrupt_images, self._bad_images
        self._bad_images = corrupt_images
        known = [images, corrupt_images - before, training.stop(), due]
        report = torch.cat(
            [
                (loss.to(kind) / training.runtime.world_size).view(1),
                *[(~value).to(loss.device, kind).view(1) for value in finite],
                torch.tensor(known, dtype=kind).to(loss.device, non_blocking=True),
            ]
        )
        return distributed.all_reduce_sum(report)


def delay_of(device: str) -> int:
    """Steps to wait before reading: a GPU works behind the host's back, a CPU does not."""
    return 1 if torch.device(device).type == "cuda" else 0
