"""The loop. It trains every study, and loses no work when it is stopped.

Every random draw is a function of the seed and the step, so that a run that was killed and
resumed ends bit for bit like one that was not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convnext_study import cost
from convnext_study.matrices import use_stock
from convnext_study.records import RESULT, Epoch, Result, Run, write_json
from convnext_study.training import processes
from convnext_study.training.assemble import assemble
from convnext_study.training.memory import forget_peak, peak_memory
from convnext_study.training.optimizer import learning_rate
from convnext_study.training.run import RunFolder
from convnext_study.training.state import Training, TrainingError
from convnext_study.training.step import groups, take_step
from convnext_study.training.task import Evaluation, Machine, Task

__all__ = ["Listener", "Stopped", "TrainingError", "evaluate", "train"]


class Stopped(Exception):
    """Training was asked to stop, and has saved its state."""


class Listener(Protocol):
    """Is told what is also written to the record, and must never raise."""

    def epoch(self, line: Epoch) -> None: ...

    def finish(self, result: Result) -> None: ...


def train(
    run: Run,
    path: Path,
    machine: Machine | None = None,
    listeners: Sequence[Listener] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a run in its folder, from wherever it is, and return its result.

    A finished run returns at once. ``stop`` is asked after every step.

    Raises:
        RunError: another process works on this folder, or it holds another run.
        TrainingError: the loss is not finite, or the state cannot be saved.
        Stopped: ``stop`` said so; the state is saved.
    """
    machine = machine or Machine()
    with RunFolder(path, run, writes=machine.rank == 0) as folder:
        processes.wait_for_all()
        if folder.done:
            return folder.result()
        torch.set_num_threads(machine.threads)
        forget_peak(machine.device)
        try:
            training = assemble(run, folder, machine, stop)
            result = _train(training, listeners)
        except Stopped:
            folder.event("stopped")
            raise
        except Exception as error:
            folder.event("failed", reason=f"{type(error).__name__}: {error}")
            raise
        for listener in listeners:
            listener.finish(result)
        return result


def _train(training: Training, listeners: Sequence[Listener]) -> Result:
    resumed = training.restore()
    training.folder.rewind(training.state.history)
    training.folder.event("resumed" if resumed else "started", step=training.state.step)
    judged = None
    while len(training.state.history) < training.recipe.epochs:
        line, judged = _epoch(training)
        for listener in listeners:
            listener.epoch(line)
    # A run that was killed after its last epoch is judged again: same network, same answer.
    result = _finish(training, judged or _judge(training))
    processes.wait_for_all()
    return result


def _epoch(training: Training) -> tuple[Epoch, dict[str, Evaluation]]:
    """Train to the end of the current epoch, judge, save, log."""
    task, state, recipe = training.task, training.state, training.recipe
    # An epoch ends when it is logged: a run stopped after its last step still has to be judged.
    epoch = len(state.history)
    done = state.step - epoch * task.steps_per_epoch
    _steps(training, task.train_batches(epoch, done))
    began = time.perf_counter()
    judged = _judge(training)
    state.seconds += time.perf_counter() - began
    result = judged[recipe.result]
    line = Epoch(
        epoch=epoch + 1,
        epochs=recipe.epochs,
        loss=state.loss_sum / max(state.images, 1),
        lr=learning_rate(recipe, state.step - 1, task.steps_per_epoch),
        top1=result.top1,
        val_loss=result.val_loss,
        seconds=round(state.seconds - sum(before["seconds"] for before in state.history), 4),
        images_per_s=round(state.images / max(state.train_seconds, 1e-9), 2),
        **_both(judged),
    )
    state.history.append(line.model_dump())
    state.loss_sum, state.images, state.train_seconds = 0.0, 0, 0.0
    _name_bad_images(training)
    training.save()
    training.folder.log(line.model_dump())
    return line, judged


def _name_bad_images(training: Training) -> None:
    """Log which images could not be read, each once a run."""
    met = frozenset[str]().union(*processes.gather(training.task.bad_names))
    new = sorted(met.difference(training.state.bad_names))
    if new:
        training.folder.event("bad_images", names=new)
        training.state.bad_names += new


def _steps(training: Training, batches: Any) -> None:
    """The epoch's remaining steps. Raises Stopped, the state saved, where that is asked for."""
    state = training.state
    training.forward.train()
    saved = clock = time.perf_counter()
    bad = training.task.bad_images
    for group in groups(iter(batches), training.task.micro_batches):
        take_step(training, group)
        state.bad_images += processes.sum_of(training.task.bad_images - bad)
        bad = training.task.bad_images
        now = time.perf_counter()
        state.train_seconds += now - clock
        state.seconds += now - clock
        clock = now
        if processes.any_of(training.stop()):
            training.save()
            raise Stopped
        if now - saved > training.machine.checkpoint_seconds:
            training.save()
            saved = time.perf_counter()


def _judge(training: Training) -> dict[str, Evaluation]:
    """The accuracy of the weights and, where there is one, of their moving average."""
    judged = {"raw": evaluate(training.task, training.model)}
    if training.ema is not None:
        judged["ema"] = evaluate(training.task, training.ema)
    return judged


def _both(judged: dict[str, Evaluation]) -> dict[str, Any]:
    if "ema" not in judged:
        return {}
    return {f"top1_{name}": one.top1 for name, one in judged.items()}


def evaluate(task: Task, model: nn.Module) -> Evaluation:
    """Judge a network on the whole validation set, and leave it in the mode it was in."""
    training = model.training
    model.eval()
    try:
        return task.evaluate(model)
    finally:
        model.train(training)


def _finish(training: Training, judged: dict[str, Evaluation]) -> Result:
    """The record of a finished run, written last."""
    state = training.state
    result = judged[training.recipe.result]
    extras = _extras(training, result)  # before counting, which takes memory of its own
    use_stock(training.model)  # what is counted is the network itself
    counted = cost.count(training.model, training.task.image_shape)
    record = Result(
        top1=result.top1,
        val_loss=result.val_loss,
        val_images=len(result.correct),
        correct=pack_bits(result.correct),
        macs=counted.macs,
        params=counted.params,
        activations=counted.activations,
        images_per_s=statistics.median(line["images_per_s"] for line in state.history),
        seconds=round(state.seconds, 3),
        epochs=training.recipe.epochs,
        **_both(judged),
        **extras,
    )
    if training.machine.rank == 0:
        write_json(training.folder.path / RESULT, record.model_dump())
    training.folder.event("done", top1=record.top1)
    return record


def _extras(training: Training, judged: Evaluation) -> dict[str, Any]:
    """What qualifies a result: how the batch was split, what was skipped, what it took."""
    machine, state = training.machine, training.state
    share = training.recipe.global_batch // machine.world
    return {
        "batch": {
            "global": training.recipe.global_batch,
            "processes": machine.world,
            "accumulated": training.task.micro_batches,
            "at_once": share // training.task.micro_batches,
        },
        "skipped_steps": state.skipped,
        "bad_images": state.bad_images,
        "bad_val_images": judged.bad_images,
        "peak_memory": peak_memory(machine.device),
    }


def pack_bits(correct: Tensor) -> str:
    """Bools to hex, eight images a byte, the first image in the highest bit."""
    import numpy as np

    return np.packbits(correct.numpy()).tobytes().hex()
