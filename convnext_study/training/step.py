"""One optimizer step: shared out over processes and micro-batches, guarded, repeatable."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from convnext_study.training.optimizer import learning_rate
from convnext_study.training.processes import mean_of
from convnext_study.training.seeds import derive, seed_everything
from convnext_study.training.state import Training, TrainingError

# After so many steps in a row without a finite loss, more of the same will not help.
MOST_SKIPPED_IN_ROW = 10
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def groups(batches: Iterator[Any], size: int) -> Iterator[Sequence[Any]]:
    """The micro-batches of one optimizer step after the other."""
    while group := list(islice(batches, size)):
        yield group


def take_step(training: Training, batches: Sequence[Any]) -> None:
    """Move the weights by one global batch, of which ``batches`` is this process's share.

    A loss that is not finite leaves the weights alone and is counted.

    Raises:
        TrainingError: too many such losses in a row; the state before them is saved.
    """
    state, recipe, optimizer = training.state, training.recipe, training.optimizer
    rate = learning_rate(recipe, state.step, training.task.steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, images = _gradients(training, batches)
    value = float(mean_of(loss))
    state.step += 1
    if math.isfinite(value):
        _update(training)
        state.loss_sum += value * images
        state.images += images
        state.skipped_in_row = 0
    else:
        _skip(training, value)
    optimizer.zero_grad(set_to_none=True)


def _gradients(training: Training, batches: Sequence[Any]) -> tuple[Tensor, int]:
    """Gradients of the mean loss over the global batch; the mean over this process's share of it,
    and the images of all shares."""
    total = torch.zeros((), device=training.machine.device)
    images = 0
    shared = derive(training.seed, "mix", training.state.step)
    for place, batch in enumerate(batches):
        # A draw depends on which part of the global batch it is for, and on nothing else.
        part = training.machine.rank * len(batches) + place
        seed_everything(derive(training.seed, "step", training.state.step, part), shared)
        with _together(training, last=place == len(batches) - 1):
            with _autocast(training):
                loss, count = training.task.loss(training.forward, batch)
            loss = loss.float() / len(batches)
            training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        images += count
    return total, images * training.machine.world


def _update(training: Training) -> None:
    if training.recipe.clip_grad:
        training.scaler.unscale_(training.optimizer)
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), training.recipe.clip_grad)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if training.ema is not None:
        training.ema.update_parameters(training.model)


def _skip(training: Training, value: float) -> None:
    state = training.state
    state.skipped += 1
    state.skipped_in_row += 1
    training.folder.event("skipped", step=state.step - 1, loss=str(value))
    if state.skipped_in_row >= MOST_SKIPPED_IN_ROW:
        training.save()
        raise TrainingError(
            f"{training.folder.path}: the loss is {value} at step {state.step - 1}, the "
            f"{MOST_SKIPPED_IN_ROW}th time in a row; try a lower learning rate (lr), gradient "
            "clipping (clip_grad), or precision float32"
        )


def _together(training: Training, *, last: bool) -> AbstractContextManager[Any]:
    """Gradients are shared with the other processes once a step, at its last micro-batch."""
    if last or not hasattr(training.forward, "no_sync"):
        return contextlib.nullcontext()
    context: AbstractContextManager[Any] = training.forward.no_sync()  # type: ignore[operator]
    return context


def _autocast(training: Training) -> AbstractContextManager[Any]:
    dtype = DTYPES.get(training.recipe.precision)
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(training.machine.device).type, dtype)
