"""The training loop of every study; it loses no work when it is stopped.

Every random draw is a function of the seed and the step, so that a run that was killed and
resumed ends with the same bits as one that was not. The processes exchange a step's numbers once,
in one packed sum, and the host reads them once: on a GPU one step late, so that the host does not
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
from convnext_study.training.outcome import epoch_values, evaluate_all, reset_peak, write_result
from convnext_study.training.runtime import Runtime, uses_tf32
from convnext_study.training.state import LR_ADVICE, TrainingError, TrainState, autocast_of
from convnext_study.training.task import Evaluation

# After so many non-finite steps in a row, more will not help.
MAX_SKIPPED_IN_ROW = 10
MEMORY_ADVICE = (
    "use a smaller --micro-batch-size, --grad-checkpointing, or --precision bf16 (--dry-run "
    "shows what fits)"
)
# If evaluation takes more seconds than this, an epoch's state is also saved before it.
LONG_EVALUATION = 1.0


class TrainingInterrupted(Exception):
    """Training was requested to stop, and has saved its state."""


def train(
    run: Run,
    path: Path,
    runtime: Runtime | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train or resume a run in its folder, and return its result.

    A finished run returns at once. ``stop`` is called after every step and evaluation batch.

    Raises:
        Busy: another process works on this folder.
        RunError: it contains another run, or cannot be written.
        ParentError: the run that it starts from is not done, or cannot be read.
        RunFailed: the state cannot be saved, the lock was lost, or a reader process was killed.
        TrainingError: too many steps in a row were not finite.
        CheckpointError: there are checkpoints, but none can be read.
        TrainingInterrupted: ``stop`` returned True; the state is saved.
    """
    runtime = runtime or Runtime()
    with contextlib.ExitStack() as stack:
        run_folder = RunFolder(path, run, writes=runtime.rank == 0, stop=stop)
        folder = distributed.all_or_raise(lambda: stack.enter_context(run_folder))
        folder.watch_lock()
        result = distributed.broadcast_object(read_result(path) if is_done(path) else None)
        if result is not None:
            return cast(Result, result)
        tf32 = uses_tf32(make_recipe(run.recipe), runtime.tf32)
        runtime = replace(runtime, tf32=tf32)
        runtime.apply()
        reset_peak(runtime.device)
        pool.forget_failure()
        try:
            training = build_train_state(
                run, folder, runtime, lambda: stop() or bool(pool.failure())
            )
            return _train(training)
        except TrainingInterrupted:
            if reason := next(filter(None, distributed.all_gather(pool.failure())), ""):
                failed = RunFailed(f"{path}: {reason}; the state is saved")
                folder.failed(failed, runtime.rank)
                raise failed from None
            folder.event("stopped")
            raise
        except Exception as error:
            if is_out_of_memory(error):
                error = RunFailed(f"{path}: {first_line(error)}; {MEMORY_ADVICE}")
            folder.failed(error, runtime.rank)
            raise error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _train(training: TrainState) -> Result:
    state, folder = training.progress, training.folder
    resumed = training.restore()
    folder.rewind(state.history)
    folder.event(
        "resumed" if resumed else "started",
        step=state.step,
        # At each start, since it may be another machine or version.
        world_size=training.runtime.world_size,
        settings=training.runtime.settings(),
        versions=versions(),
        commit=commit(),
        hardware=hardware(training.runtime.device),
    )
    stepper = Stepper(training)
    evaluations = None
    while state.epoch < training.recipe.epochs:
        _take_steps(training, stepper)
        evaluations = _end_epoch(training)
    # A run that was killed after its last epoch is evaluated again, with the same outcome.
    evaluations = evaluations or evaluate_all(training, lambda: _check(training))
    result = write_result(training, evaluations)
    if folder.writes:
        forget_parent(folder.path)
    distributed.barrier()
    return result


def _take_steps(training: TrainState, stepper: Stepper) -> None:
    """Take the remaining steps of the current epoch.

    Raises TrainingInterrupted, with the state saved, if a stop was requested.
    """
    task, state = training.task, training.progress
    training.forward.train()
    stepper.begin_epoch()
    last_save = clock = time.perf_counter()
    batches = task.train_batches(state.epoch, state.step - state.epoch * task.steps_per_epoch)
    while group := list(islice(batches, task.accum_steps)):
        due = time.perf_counter() - last_save > training.runtime.checkpoint_seconds
        stepper.take(group, due=due)
        reports = list(stepper.reports())
        must_save = any(report.stop or report.due for report in reports)
        if must_save:
            reports += stepper.reports(flush=True)
        now = time.perf_counter()
        state.train_seconds += now - clock
        state.seconds += now - clock
        clock = now
        _account(training, reports)
        if must_save:
            training.save()
            if any(report.stop for report in reports):
                raise TrainingInterrupted
            last_save = clock = time.perf_counter()
    _account(training, stepper.reports(flush=True))


def _account(training: TrainState, reports: Iterable[Report]) -> None:
    """Add the numbers of steps to the epoch's.

    Raises TrainingError after too many non-finite steps in a row; the state is saved.
    """
    state = training.progress
    for report in reports:
        state.corrupt_images += round(report.corrupt_images)
        if not report.not_finite:
            state.loss_sum += report.loss * report.images
            state.images += round(report.images)
            state.skipped_in_row = 0
            continue
        # fp16 overflows while it searches for the largest scale: that is not the run's fault.
        overflow = math.isfinite(report.loss) and training.scaler.get_scale() > 1
        state.skipped += 1
        state.skipped_in_row += not overflow
        training.folder.event(
            "skipped", step=report.step, loss=str(report.loss), reason=report.not_finite
        )
        if state.skipped_in_row >= MAX_SKIPPED_IN_ROW:
            training.save()
            raise TrainingError(
                f"{training.folder.path}: the {report.not_finite} is not finite at step "
                f"{report.step} (loss is {report.loss}), the {MAX_SKIPPED_IN_ROW}th time in a "
                f"row; {LR_ADVICE}"
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
    evaluations = _evaluate(training) if last or task.evaluates_after(epoch) else None
    fields: dict[str, Any] = {"metrics": {}, "primary": ""}
    if evaluations:
        fields = epoch_values(evaluations, recipe.eval_weights)
    line = Epoch(
        epoch=epoch + 1,
        epochs=recipe.epochs,
        loss=state.loss_sum / max(state.images, 1),
        lr=learning_rate(recipe, state.step - 1, task.steps_per_epoch),
        seconds=round(state.seconds - sum(past["seconds"] for past in state.history), 4),
        images_per_s=round(state.images / max(state.train_seconds, 1e-9), 2),
        **fields,
    )
    state.history.append(line.model_dump())
    state.loss_sum, state.images, state.train_seconds = 0.0, 0, 0.0
    training.save()
    training.folder.log(line.model_dump())
    return evaluations


def _evaluate(training: TrainState) -> dict[str, Evaluation]:
    """Evaluate the epoch's network; saves the state first if the evaluation is long.

    Raises TrainingInterrupted if a stop was requested; the state is saved.
    """
    state = training.progress
    # Before a short evaluation, saving would cost as much as the evaluation itself.
    if saved_before := state.evaluation_seconds > LONG_EVALUATION:
        training.save()
    start = time.perf_counter()
    try:
        evaluations = evaluate_all(training, lambda: _check(training))
    except TrainingInterrupted:
        if not saved_before:
            training.save()
        raise
    state.evaluation_seconds = distributed.broadcast_object(time.perf_counter() - start)
    state.seconds += state.evaluation_seconds
    return evaluations


def _check(training: TrainState) -> None:
    if distributed.all_reduce_any(training.stop()):
        raise TrainingInterrupted


class Report(NamedTuple):
    """The numbers of a step, summed over the processes.

    Args:
        step: its index, from 0.
        loss: the mean over the global batch.
        gradient: in how many processes the gradient is not finite.
        buffers: in how many processes the buffers are not finite.
        images: in the global batch.
        corrupt_images: those that were replaced by others.
        stop: how many processes were requested to stop.
        due: in how many processes it is time to save.
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
    def not_finite(self) -> str:
        """What was not finite; empty if everything was."""
        if not math.isfinite(self.loss):
            return "loss"
        return "gradient" if self.gradient else "buffers" if self.buffers else ""


class Stepper:
    """Takes and reports a run's optimizer steps: split over processes and micro-batches,
    reproducible, and skipped if they are not finite."""

    def __init__(self, training: TrainState) -> None:
        self._training = training
        self._buffers = Buffers(training.model)
        self._delay = report_delay(training.runtime.device)
        self._parameters = [p for p in training.model.parameters() if p.requires_grad]
        self._waiting: deque[tuple[int, Tensor]] = deque()
        self._warm = not distributed.is_distributed()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Count corrupt training images from here on, without those that evaluation met."""
        self._bad_images = self._training.task.corrupt_images

    def take(self, batches: Sequence[Any], *, due: bool) -> None:
        """Train on one global batch, of which ``batches`` is this process's share.

        A step whose loss, gradient or buffers are not finite changes no weights and no buffers.
        """
        training, state = self._training, self._training.progress
        optimizer: Any = training.optimizer
        lr = learning_rate(training.recipe, state.step, training.task.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr
        self._buffers.remember()
        if not self._warm:
            # DistributedDataParallel rebuilds its buckets after the first backward pass, and over
            # three or more processes the rounding of a sum depends on its bucket: this extra pass
            # changes nothing else, and a resumed run does not differ in the last bit.
            self._gradients(batches)
            optimizer.zero_grad(set_to_none=True)
            self._buffers.restore()
            self._warm = True
        loss, images = self._gradients(batches)
        report = self._report(loss, images, due=due)
        bad = ~torch.isfinite(report[0]) | (report[1] + report[2] > 0)
        # As a gradient scaler does: the fused step then changes nothing, on the device.
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

    def reports(self, *, flush: bool = False) -> Iterator[Report]:
        """The steps whose numbers can be read without waiting, or all of them, each once."""
        while len(self._waiting) > (0 if flush else self._delay):
            step, report = self._waiting.popleft()
            yield Report(step, *report.tolist())

    def _gradients(self, batches: Sequence[Any]) -> tuple[Tensor, int]:
        """Computes gradients of the mean loss over the global batch. Returns the mean loss over
        this process's share, and the number of its images."""
        training = self._training
        device = training.runtime.device
        total, images = torch.zeros((), device=device), 0
        for index, batch in enumerate(batches):
            # Draws depend only on the seed, the step and the part of the global batch.
            part = training.runtime.rank * len(batches) + index
            seed_everything(fold_in(training.seed, "step", training.progress.step, part), device)
            # Gradients are reduced over the processes once per step, at its last micro-batch.
            no_sync: Any = getattr(training.forward, "no_sync", contextlib.nullcontext)
            with contextlib.nullcontext() if index == len(batches) - 1 else no_sync():
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
        norm = norm_of(p.grad for p in self._parameters if p.grad is not None)
        if training.recipe.clip_grad:
            clip_grads_with_norm_(self._parameters, training.recipe.clip_grad, norm)
        dtype = torch.float32 if loss.device.type == "mps" else torch.float64
        finite = (torch.isfinite(norm), self._buffers.are_finite())
        corrupt, before = training.task.corrupt_images, self._bad_images
        self._bad_images = corrupt
        counts = [images, corrupt - before, training.stop(), due]
        report = torch.cat(
            [
                (loss.to(dtype) / training.runtime.world_size).view(1),
                *[(~value).to(loss.device, dtype).view(1) for value in finite],
                torch.tensor(counts, dtype=dtype).to(loss.device, non_blocking=True),
            ]
        )
        return distributed.all_reduce_sum(report)


def report_delay(device: str) -> int:
    """Steps to wait before reading numbers: a GPU runs asynchronously, a CPU does not."""
    return 1 if torch.device(device).type == "cuda" else 0
