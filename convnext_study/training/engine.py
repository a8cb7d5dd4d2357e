"""The loop. It trains every study, and loses no work when it is stopped.

Every random draw is a function of the seed and the step, so that a run that was killed and
resumed ends bit for bit like one that was not.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convnext_study import cost
from convnext_study.depthwise import use_matrices, use_stock
from convnext_study.errors import Failed
from convnext_study.records import RESULT, Epoch, Result, Run, write_json
from convnext_study.training import checkpoint
from convnext_study.training.optimizer import learning_rate, make_optimizer
from convnext_study.training.recipe import Recipe, make_recipe
from convnext_study.training.run import RunFolder
from convnext_study.training.seeds import derive, seed_everything
from convnext_study.training.task import Evaluation, Machine, Task, make_task


class TrainingError(Failed):
    """Training cannot go on; the message says why and what to try. The last state is on disk."""


class Stopped(Exception):
    """Training was asked to stop, and has saved its state."""


class Listener(Protocol):
    """Is told what is also written to the record, and must never raise."""

    def epoch(self, line: Epoch) -> None: ...

    def finish(self, result: Result) -> None: ...


@dataclass
class State:
    """Where a run is: all of it goes into a checkpoint."""

    step: int = 0  # optimizer steps done
    loss_sum: float = 0.0  # over the images of this epoch so far
    images: int = 0
    train_seconds: float = 0.0  # of this epoch so far
    seconds: float = 0.0  # of the whole run so far, over all resumes
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A network on its way, and what moves it."""

    task: Task
    recipe: Recipe
    model: nn.Module
    optimizer: torch.optim.Optimizer
    state: State
    folder: RunFolder
    stop: Callable[[], bool]
    seed: int

    def save(self) -> None:
        checkpoint.save(
            self.folder.path,
            {
                "key": self.folder.run.key,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "state": vars(self.state),
            },
        )


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
        TrainingError: the loss is not finite.
        Stopped: ``stop`` said so; the state is saved.
    """
    machine = machine or Machine()
    with RunFolder(path, run) as folder:
        if folder.done:
            return folder.result()
        torch.set_num_threads(machine.threads)
        try:
            training = _begin(run, folder, machine, stop)
            judged = None
            while len(training.state.history) < training.recipe.epochs:
                line, judged = _epoch(training)
                for listener in listeners:
                    listener.epoch(line)
            # A run that was killed after its last epoch is judged again: same network, same answer.
            result = _finish(training, judged or evaluate(training.task, training.model))
        except Stopped:
            folder.event("stopped")
            raise
        except Exception as error:
            folder.event("failed", reason=f"{type(error).__name__}: {error}")
            raise
        for listener in listeners:
            listener.finish(result)
        return result


def _begin(run: Run, folder: RunFolder, machine: Machine, stop: Callable[[], bool]) -> Training:
    recipe = make_recipe(run.recipe)
    task = make_task(run, machine)
    seed_everything(derive(run.seed, "weights"))
    model = task.build()
    use_matrices(model)
    model = model.to(machine.device, memory_format=machine.memory_format)  # type: ignore[call-overload]
    training = Training(
        task=task,
        recipe=recipe,
        model=model,
        optimizer=make_optimizer(model, recipe),
        state=State(),
        folder=folder,
        stop=stop,
        seed=run.seed,
    )
    saved = checkpoint.load(folder.path, lambda text: folder.event("warning", text=text))
    if saved is not None:
        model.load_state_dict(saved["model"])
        training.optimizer.load_state_dict(saved["optimizer"])
        vars(training.state).update(saved["state"])
    folder.rewind(training.state.history)
    folder.event("resumed" if saved else "started", step=training.state.step)
    return training


def _epoch(training: Training) -> tuple[Epoch, Evaluation]:
    """Train to the end of the current epoch, judge, log, save."""
    task, state, recipe = training.task, training.state, training.recipe
    # An epoch ends when it is logged: a run stopped after its last step still has to be judged.
    epoch = len(state.history)
    done = state.step - epoch * task.steps_per_epoch
    training.model.train()
    began = time.perf_counter()
    for batch in task.train_batches(epoch, done):
        _step(training, batch)
        if training.stop():
            state.train_seconds += time.perf_counter() - began
            state.seconds += time.perf_counter() - began
            training.save()
            raise Stopped
    state.train_seconds += time.perf_counter() - began
    judged = evaluate(task, training.model)
    state.seconds += time.perf_counter() - began
    line = Epoch(
        epoch=epoch + 1,
        epochs=recipe.epochs,
        loss=state.loss_sum / state.images,
        lr=learning_rate(recipe, state.step - 1, task.steps_per_epoch),
        top1=judged.top1,
        val_loss=judged.val_loss,
        seconds=round(state.seconds - _seconds_before(state), 4),
        images_per_s=round(state.images / state.train_seconds, 2),
    )
    state.history.append(line.model_dump())
    state.loss_sum, state.images, state.train_seconds = 0.0, 0, 0.0
    training.save()
    training.folder.log(line.model_dump())
    return line, judged


def _step(training: Training, batch: Any) -> None:
    """One optimizer step."""
    state = training.state
    rate = learning_rate(training.recipe, state.step, training.task.steps_per_epoch)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    seed_everything(derive(training.seed, "step", state.step))
    loss, images = training.task.loss(training.model, batch)
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(
            f"{training.folder.path}: the loss is {value} at step {state.step}; "
            "try a lower learning rate (lr) or gradient clipping (clip_grad)"
        )
    loss.backward()  # type: ignore[no-untyped-call]
    if training.recipe.clip_grad:
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.recipe.clip_grad)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.loss_sum += value * images
    state.images += images


def _seconds_before(state: State) -> float:
    return float(sum(line["seconds"] for line in state.history))


def evaluate(task: Task, model: nn.Module) -> Evaluation:
    """Judge a network on the whole validation set, and leave it in the mode it was in."""
    training = model.training
    model.eval()
    try:
        return task.evaluate(model)
    finally:
        model.train(training)


def _finish(training: Training, judged: Evaluation) -> Result:
    """The record of a finished run, written last."""
    state = training.state
    use_stock(training.model)  # what is counted is the network itself
    counted = cost.count(training.model, training.task.image_shape)
    result = Result(
        top1=judged.top1,
        val_loss=judged.val_loss,
        val_images=len(judged.correct),
        correct=pack_bits(judged.correct),
        macs=counted.macs,
        params=counted.params,
        activations=counted.activations,
        images_per_s=statistics.median(line["images_per_s"] for line in state.history),
        seconds=round(state.seconds, 3),
        epochs=training.recipe.epochs,
    )
    write_json(training.folder.path / RESULT, result.model_dump())
    training.folder.event("done", top1=result.top1)
    return result


def pack_bits(correct: Tensor) -> str:
    """Bools to hex, eight images a byte, the first image in the highest bit."""
    import numpy as np

    return np.packbits(correct.numpy()).tobytes().hex()
